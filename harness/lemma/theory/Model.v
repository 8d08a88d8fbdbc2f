(* SPDX-License-Identifier: Apache-2.0 *)
(* VCPUOpsAux and VCPUOps at the levels spec, low and body, as functions (docs/spec/model.md).

   A level is a function from RData to option RData: None where a precondition is violated, and at level body also
   where the code is stuck.  Level body is the C code read as a function over the primitives' specifications, with its
   arithmetic; it is not Clight.  A context maps an index to a value: 0..72 is the table of section 2.2, 100 and up the
   floating point registers.  Foreign events do not occur: one CPU is enough for these claims.  No axiom is used. *)
Require Import ZArith List Bool.
Import ListNotations.
Open Scope Z_scope.

(* ---- state (section 2) *)

Record VmInfo := mkVmInfo {
  vm_state : Z;
  vm_next_load_info : Z;
  vm_inc_exe : Z;
  images : list (Z * Z * Z)
}.

Definition set_vm_state (x : Z) (vi : VmInfo) : VmInfo :=
  {| vm_state := x; vm_next_load_info := vm_next_load_info vi; vm_inc_exe := vm_inc_exe vi; images := images vi |}.

Record Npt := mkNpt {
  pt : Z -> Z * Z * Z;
  pgd_t : Z -> bool;
  pud_t : Z -> Z -> bool;
  pmd_t : Z -> Z -> Z -> bool;
  pgd_next : Z;
  pud_next : Z;
  pmd_next : Z
}.

Record RData := mkRData {
  halt : bool;
  cur_vmid : Z;
  cur_vcpuid : Z;
  tstate : Z;
  shadow_ctxts : Z -> Z -> Z;
  doracle : Z -> Z -> Z;
  data_log : Z -> Z;
  core_doracle : Z -> Z -> Z;
  core_data_log : Z -> Z;
  vminfos : Z -> VmInfo;
  s2page : Z -> Z * Z * Z;
  flatmem : Z -> Z;
  npts : Z -> Npt;
  lock : Z -> bool;
  log : Z -> list (list Z);
  reg_desc : Z -> Z;
  exception_vector : Z -> Z
}.

Definition set_halt (x : bool) (d : RData) : RData :=
  {| halt := x; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := tstate d; shadow_ctxts := shadow_ctxts
     d; doracle := doracle d; data_log := data_log d; core_doracle := core_doracle d; core_data_log := core_data_log
     d; vminfos := vminfos d; s2page := s2page d; flatmem := flatmem d; npts := npts d; lock := lock d; log := log
     d; reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition set_tstate (x : Z) (d : RData) : RData :=
  {| halt := halt d; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := x; shadow_ctxts := shadow_ctxts
     d; doracle := doracle d; data_log := data_log d; core_doracle := core_doracle d; core_data_log := core_data_log
     d; vminfos := vminfos d; s2page := s2page d; flatmem := flatmem d; npts := npts d; lock := lock d; log := log
     d; reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition set_shadow_ctxts (x : Z -> Z -> Z) (d : RData) : RData :=
  {| halt := halt d; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := tstate d; shadow_ctxts := x;
     doracle := doracle d; data_log := data_log d; core_doracle := core_doracle d; core_data_log := core_data_log d;
     vminfos := vminfos d; s2page := s2page d; flatmem := flatmem d; npts := npts d; lock := lock d; log := log d;
     reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition set_data_log (x : Z -> Z) (d : RData) : RData :=
  {| halt := halt d; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := tstate d; shadow_ctxts :=
     shadow_ctxts d; doracle := doracle d; data_log := x; core_doracle := core_doracle d; core_data_log :=
     core_data_log d; vminfos := vminfos d; s2page := s2page d; flatmem := flatmem d; npts := npts d; lock := lock
     d; log := log d; reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition set_core_data_log (x : Z -> Z) (d : RData) : RData :=
  {| halt := halt d; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := tstate d; shadow_ctxts :=
     shadow_ctxts d; doracle := doracle d; data_log := data_log d; core_doracle := core_doracle d; core_data_log :=
     x; vminfos := vminfos d; s2page := s2page d; flatmem := flatmem d; npts := npts d; lock := lock d; log := log
     d; reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition set_vminfos (x : Z -> VmInfo) (d : RData) : RData :=
  {| halt := halt d; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := tstate d; shadow_ctxts :=
     shadow_ctxts d; doracle := doracle d; data_log := data_log d; core_doracle := core_doracle d; core_data_log :=
     core_data_log d; vminfos := x; s2page := s2page d; flatmem := flatmem d; npts := npts d; lock := lock d; log :=
     log d; reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition set_s2page (x : Z -> Z * Z * Z) (d : RData) : RData :=
  {| halt := halt d; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := tstate d; shadow_ctxts :=
     shadow_ctxts d; doracle := doracle d; data_log := data_log d; core_doracle := core_doracle d; core_data_log :=
     core_data_log d; vminfos := vminfos d; s2page := x; flatmem := flatmem d; npts := npts d; lock := lock d; log
     := log d; reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition set_flatmem (x : Z -> Z) (d : RData) : RData :=
  {| halt := halt d; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := tstate d; shadow_ctxts :=
     shadow_ctxts d; doracle := doracle d; data_log := data_log d; core_doracle := core_doracle d; core_data_log :=
     core_data_log d; vminfos := vminfos d; s2page := s2page d; flatmem := x; npts := npts d; lock := lock d; log :=
     log d; reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition set_npts (x : Z -> Npt) (d : RData) : RData :=
  {| halt := halt d; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := tstate d; shadow_ctxts :=
     shadow_ctxts d; doracle := doracle d; data_log := data_log d; core_doracle := core_doracle d; core_data_log :=
     core_data_log d; vminfos := vminfos d; s2page := s2page d; flatmem := flatmem d; npts := x; lock := lock d; log
     := log d; reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition set_lock (x : Z -> bool) (d : RData) : RData :=
  {| halt := halt d; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := tstate d; shadow_ctxts :=
     shadow_ctxts d; doracle := doracle d; data_log := data_log d; core_doracle := core_doracle d; core_data_log :=
     core_data_log d; vminfos := vminfos d; s2page := s2page d; flatmem := flatmem d; npts := npts d; lock := x; log
     := log d; reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition set_log (x : Z -> list (list Z)) (d : RData) : RData :=
  {| halt := halt d; cur_vmid := cur_vmid d; cur_vcpuid := cur_vcpuid d; tstate := tstate d; shadow_ctxts :=
     shadow_ctxts d; doracle := doracle d; data_log := data_log d; core_doracle := core_doracle d; core_data_log :=
     core_data_log d; vminfos := vminfos d; s2page := s2page d; flatmem := flatmem d; npts := npts d; lock := lock
     d; log := x; reg_desc := reg_desc d; exception_vector := exception_vector d |}.

Definition upd {A : Type} (m : Z -> A) (k : Z) (v : A) : Z -> A := fun i => if i =? k then v else m i.

(* ---- ranges and constants (section 2.1) *)

Definition is_int v := (0 <=? v) && (v <? 2 ^ 32).
Definition is_int64 v := (0 <=? v) && (v <? 2 ^ 64).
Definition is_vmid v := (0 <=? v) && (v <=? 16).
Definition is_vm v := (0 <? v) && (v <? 16).
Definition is_vcpu v := (0 <=? v) && (v <? 8).
Definition is_addr v := (0 <=? v) && (v <? 2 ^ 48).
Definition is_gfn v := (0 <=? v) && (v <? 68719476736).
Definition is_pfn v := (0 <=? v) && (v <? 268435456).
Definition INVALID := 4294967295.
Definition INVALID64 := 18446744073709551615.
Definition DIRTY_PC_FLAG := 4294967296.
Definition PENDING_EXCEPT_INJECT_FLAG := 60129542144.
Definition MAX_MMIO_ADDR := 1073741824.
Definition u64 v := v mod 2 ^ 64.

(* Indices of section 2.2; those without a field read as 0 and ignore writes. *)
Definition PC := 32.
Definition PSTATE := 33.
Definition ELR_EL1 := 35.
Definition FAR_EL2 := 41.
Definition HPFAR_EL2 := 42.
Definition EC := 44.
Definition DIRTY := 45.
Definition FLAGS := 46.
Definition ESR_EL1 := 55.
Definition SPSR_0 := 71.
Definition ESR_EL2 := 72.
Definition has_field i :=
  (0 <=? i) && (i <=? 72)
  && negb (existsb (Z.eqb i) [31; 34; 37; 38; 39; 40; 69]).

Notation "'rely' c ; k" := (if c then k else None)
  (at level 60, c at level 200, right associativity).
Notation "'run' x := e ; k" := (match e with Some x => k | None => None end)
  (at level 60, x name, e at level 200, right associativity).
Definition M (A : Type) := option (A * RData).
Notation "'get' x , d := e ; k" := (match e with Some (x, d) => k | None => None end)
  (at level 60, x name, d name, e at level 200, right associativity).

(* ---- locks (section 7); an event is a list of numbers: 1 WAIT_LOCK, 2 OPULL, 3 the new value, 4 REL_LOCK *)

Definition INFO_ID := 22.
Definition balanced (l : list (list Z)) :=
  match l with [] => true | [4] :: _ => true | _ => false end.
Definition free id d := negb (lock d id) && balanced (log d id).
Definition acquire id d : option RData :=
  rely free id d;
  Some (set_tstate 0 (set_lock (upd (lock d) id true) (set_log (upd (log d) id ([2; id] :: [1; 10] :: log d id)) d))).
Definition release id (value : list Z) d : RData :=
  set_tstate 1 (set_lock (upd (lock d) id false) (set_log (upd (log d) id ([4] :: (3 :: value) :: log d id)) d)).

(* ---- primitives (section 3) *)

Definition ctxt_id vmid vcpuid := vmid * 8 + vcpuid.
Definition context vmid vcpuid d := shadow_ctxts d (ctxt_id vmid vcpuid).
Definition set_context vmid vcpuid c d := set_shadow_ctxts (upd (shadow_ctxts d) (ctxt_id vmid vcpuid) c) d.
Definition read_field (c : Z -> Z) i := if has_field i then c i else 0.
Definition write_field (c : Z -> Z) i v := if has_field i then upd c i v else c.

Definition get_cur_vmid d := if halt d then 0 else cur_vmid d.
Definition get_cur_vcpuid d := if halt d then 0 else cur_vcpuid d.
Definition ids vmid vcpuid := is_vmid vmid && is_vcpu vcpuid.
Definition get_shadow_ctxt vmid vcpuid i d : option Z :=
  if halt d then Some 0 else rely ids vmid vcpuid; Some (read_field (context vmid vcpuid d) i).
Definition set_shadow_ctxt vmid vcpuid i v d : option RData :=
  if halt d then Some d else
  rely ids vmid vcpuid; Some (set_context vmid vcpuid (write_field (context vmid vcpuid d) i v) d).
Definition get_shadow_esr vmid vcpuid d := get_shadow_ctxt vmid vcpuid ESR_EL2 d.
Definition get_shadow_dirty_bit vmid vcpuid d := get_shadow_ctxt vmid vcpuid DIRTY d.
Definition set_shadow_dirty_bit vmid vcpuid v d := set_shadow_ctxt vmid vcpuid DIRTY v d.
Definition data vmid k d := doracle d vmid (data_log d vmid + k).
Definition advance vmid n d := set_data_log (upd (data_log d) vmid (data_log d vmid + n)) d.
Definition core vmid k d := core_doracle d vmid (core_data_log d vmid + k).
Definition core_advance vmid n d := set_core_data_log (upd (core_data_log d) vmid (core_data_log d vmid + n)) d.
(* get_int_gpr, get_int_pc, get_int_pstate, get_int_esr: the next value, whatever is asked for *)
Definition take_data vmid vcpuid d : M Z :=
  if halt d then Some (0, d) else rely ids vmid vcpuid; Some (data vmid 0 d, advance vmid 1 d).
(* get_vm_fault_addr, get_int_new_pte, get_int_new_level *)
Definition take_core vmid vcpuid d : M Z :=
  if halt d then Some (0, d) else rely ids vmid vcpuid; Some (core vmid 0 d, core_advance vmid 1 d).
Definition zero_gprs (c : Z -> Z) : Z -> Z := fun i => if (0 <=? i) && (i <=? 30) then 0 else c i.
Definition zero_fp (c : Z -> Z) : Z -> Z := fun i => if (100 <=? i) && (i <=? 133) then 0 else c i.
Definition on_context (f : (Z -> Z) -> Z -> Z) vmid vcpuid d : option RData :=
  if halt d then Some d else
  rely ids vmid vcpuid; Some (set_context vmid vcpuid (f (context vmid vcpuid d)) d).
Definition clear_shadow_gp_regs := on_context zero_gprs.
Definition reset_fp_regs := on_context zero_fp.
Definition get_sys_reg_desc_val i d : option Z :=
  if halt d then Some 0 else rely (0 <=? i) && (i <? 256); Some (reg_desc d i).
Definition read_actlr_el1 d : Z * RData :=
  if halt d then (0, d) else (data (cur_vmid d) 0 d, advance (cur_vmid d) 1 d).
Definition panic d := set_halt true d.

Definition is_inc_exe vmid d : M Z :=
  if halt d then Some (0, d) else
  rely is_vmid vmid;
  run d1 := acquire (INFO_ID + vmid) d;
  let v := vm_inc_exe (vminfos d1 vmid) in
  rely is_int v; Some (v, release (INFO_ID + vmid) [] d1).

Fixpoint search (l : list (Z * Z * Z)) (addr found : Z) : option Z :=
  match l with
  | [] => Some found
  | (base, size, remap) :: rest =>
      rely is_addr base; rely is_addr size; rely is_addr remap; rely (remap + size <=? 2 ^ 48);
      search rest addr (if (base <=? addr) && (addr <? base + size) then addr - base + remap else found)
  end.
Definition search_load_info vmid addr d : M Z :=
  rely is_vmid vmid; rely is_int64 addr;
  if halt d then Some (0, d) else
  run d1 := acquire (INFO_ID + vmid) d;
  let info := vminfos d1 vmid in
  rely (0 <=? vm_next_load_info info) && (vm_next_load_info info <=? 5);
  run found := search (firstn (Z.to_nat (vm_next_load_info info)) (images info)) addr 0;
  Some (found, release (INFO_ID + vmid) [] d1).
Definition set_vm_poweroff vmid d : option RData :=
  rely is_vmid vmid;
  if halt d then Some d else
  run d1 := acquire (INFO_ID + vmid) d;
  Some (release (INFO_ID + vmid) [4] (set_vminfos (upd (vminfos d1) vmid (set_vm_state 4 (vminfos d1 vmid))) d1)).

(* ---- mapping a page (section 8); level 2, 512 pages at once, is left out: undefined here *)

Definition phys_page pte := Z.land (Z.land pte 281474976710655) 1152921504606842880.
Definition pool vmid := 65536 + 33554432 * vmid.
Definition insert vmid addr pte d : option RData :=
  let n := npts d vmid in
  let i := Z.land (Z.shiftr addr 39) 511 in
  let j := Z.land (Z.shiftr addr 30) 511 in
  let k := Z.land (Z.shiftr addr 21) 511 in
  let gfn := addr / 4096 in
  let '(_, old, _) := pt n gfn in
  let pgd := pgd_next n + (if pgd_t n i then 0 else 4096) in
  let pud := pud_next n + (if pud_t n i j then 0 else 4096) in
  let pmd := pmd_next n + (if pmd_t n i j k then 0 else 4096) in
  rely negb (old =? 2);
  rely (pgd <=? pool vmid + 1052672) && (pud <=? pool vmid + 9441280) && (pmd <=? pool vmid + 33554432);
  Some (set_npts (upd (npts d) vmid
    (mkNpt (upd (pt n) gfn (phys_page pte / 4096, 3, pte)) (upd (pgd_t n) i true)
       (upd (pud_t n) i (upd (pud_t n i) j true))
       (upd (pmd_t n) i (upd (pmd_t n i) j (upd (pmd_t n i j) k true))) pgd pud pmd)) d).
Definition lock_panic d := set_tstate 0 (panic d).
Definition assign vmid gfn pfn d : option RData :=
  rely is_vmid vmid; rely is_gfn gfn; rely is_pfn pfn;
  if halt d then Some d else
  rely free 5 d;
  run d1 := acquire 2 d;
  let '(owner, count, old) := s2page d1 pfn in
  rely is_int owner; rely is_int count; rely is_int64 old;
  if owner =? 0 then
    if count =? 0 then
      run d2 := acquire 5 d1;
      let d3 := set_s2page (upd (s2page d2) pfn (vmid, 0, gfn)) d2 in
      let '(_, level, pte) := pt (npts d3 0) pfn in
      rely is_int level;
      let finish d4 :=
        let content := data vmid 0 d4 in
        let d5 := advance vmid 1 (set_flatmem (upd (flatmem d4) pfn content) d4) in
        let d6 := set_log (upd (log d5) 0 ([5; pfn; content] :: log d5 0)) d5 in
        Some (release 2 [pfn; vmid; 0; gfn] d6) in
      if negb (level =? 0) && negb (phys_page pte =? 0) then
        match insert 0 (pfn * 4096) (2 ^ 57) d3 with
        | Some d4 => finish (release 5 [pfn; 3; 2 ^ 57] d4)
        | None => Some (lock_panic d3)
        end
      else finish (release 5 [] d3)
    else Some (lock_panic d1)
  else if (owner =? vmid) && ((old =? INVALID64) || (gfn =? old)) then
    let count' := if count =? INVALID then 0 else count in
    let d2 := set_s2page (upd (s2page d1) pfn (owner, count', gfn)) d1 in
    Some (release 2 [pfn; owner; count'; gfn] d2)
  else Some (lock_panic d1).
Definition map_page vmid addr pte d : option RData :=
  rely is_vmid vmid; rely is_addr addr; rely is_int64 pte;
  if halt d then Some d else
  run d1 := acquire (5 + vmid) d;
  let entry := Z.lor (phys_page pte) 4095 in
  match insert vmid addr entry d1 with
  | Some d2 => Some (release (5 + vmid) [addr; 3; entry] d2)
  | None => Some (lock_panic d1)
  end.
Definition prot_and_map_vm_s2pt vmid addr pte level d : option RData :=
  rely is_vmid vmid; rely is_addr addr; rely negb (level =? 2);
  run d1 := assign vmid (addr / 4096) (phys_page pte / 4096) d;
  map_page vmid addr pte d1.

(* ---- VCPUOpsAux, level spec (section 4): the inner functions are what VCPUOps inlines *)

Definition with_context vmid vcpuid (f : (Z -> Z) -> Z -> Z) d := set_context vmid vcpuid (f (context vmid vcpuid d)) d.
Definition put i v (c : Z -> Z) := upd c i v.
Definition wfx vmid vcpuid d : option RData := Some (with_context vmid vcpuid (put DIRTY DIRTY_PC_FLAG) d).
Fixpoint all_int64 (c : Z -> Z) (l : list Z) : bool :=
  match l with [] => true | i :: rest => is_int64 (c i) && all_int64 c rest end.
Definition CPU_ON := 3288334339.
Definition AFFINITY_INFO := 2214592516.
Definition AFFINITY_INFO64 := 1073741828.
Definition SYSTEM_OFF := 2214592520.
(* set_int_gpr is the identity of RData: of a reveal the precondition is left *)
Definition hvc vmid vcpuid d : option RData :=
  let c := context vmid vcpuid d in
  rely is_int64 (c 0);
  let d1 := with_context vmid vcpuid (put DIRTY 1) d in
  let fn := Z.land (c 0) INVALID in
  if fn =? CPU_ON then rely all_int64 c [1; 2; 3]; Some d1
  else if (fn =? AFFINITY_INFO) || (fn =? AFFINITY_INFO64) then rely all_int64 c [1; 2]; Some d1
  else if fn =? SYSTEM_OFF then set_vm_poweroff vmid d1
  else Some d1.
Definition is_read esr := (Z.land esr 64 =? 0) && (Z.land esr 128 =? 0).
Definition abort vmid vcpuid d : option RData :=
  let c := context vmid vcpuid d in
  let esr := data vmid 0 d in
  rely is_int64 esr;
  let rd := Z.land (esr / 65536) 31 in
  rely is_gfn (c HPFAR_EL2 / 16);
  if c HPFAR_EL2 / 16 * 4096 <? MAX_MMIO_ADDR then
    if is_read esr then Some (with_context vmid vcpuid (put DIRTY (Z.shiftl 1 rd)) d)
    else
      let d1 := with_context vmid vcpuid (put DIRTY DIRTY_PC_FLAG) d in
      rely is_int64 (read_field (context vmid vcpuid d1) rd); Some d1
  else Some d.
Definition gprs : list Z := map Z.of_nat (seq 0 31).
Definition dirty_bit dirty i := negb (Z.land dirty (Z.shiftl 1 i) =? 0).
Definition sync vmid vcpuid dirty d : option RData :=
  let marked := filter (dirty_bit dirty) gprs in
  match marked with
  | [] => Some (advance vmid 0 d)
  | _ =>
      let v := data vmid 0 d in
      rely is_int64 v;
      Some (advance vmid (Z.of_nat (length marked))
              (with_context vmid vcpuid (fun c => fold_left (fun c i => upd c i v) marked c) d))
  end.
Definition gp_reset vmid vcpuid d : option RData :=
  let pc := data vmid 0 d in
  rely is_int64 pc;
  get base , d1 := search_load_info vmid pc d;
  rely is_addr base;
  let d2 := advance vmid 1 d1 in
  if base =? 0 then Some (panic d2) else
  let pstate := data vmid 0 d2 in
  let d3 := advance vmid 1 d2 in
  rely is_int64 pstate;
  Some (with_context vmid vcpuid (fun c => put PSTATE pstate (put PC pc (zero_fp (zero_gprs c)))) d3).
Definition sys_indices : list Z := map Z.of_nat (seq 1 24).
Fixpoint sys_reset (l : list Z) vmid vcpuid d : option RData :=
  match l with
  | [] => Some d
  | i :: rest =>
      let v := reg_desc d i in (* 47 and 50 are not among 1..24 *)
      rely is_int64 v;
      sys_reset rest vmid vcpuid (with_context vmid vcpuid (fun c => write_field c i v) d)
  end.
Definition enter_exception pc pstate new_pc (c : Z -> Z) :=
  put ESR_EL1 0 (put SPSR_0 pstate (put PSTATE 965 (put PC new_pc (put ELR_EL1 pc c)))).

Definition a_vm vmid vcpuid := is_vm vmid && is_vcpu vcpuid.
Definition unless_halted (f : RData -> option RData) d : option RData := if halt d then Some d else f d.
Definition prep_wfx_spec vmid vcpuid d := rely a_vm vmid vcpuid; unless_halted (wfx vmid vcpuid) d.
Definition prep_hvc_spec vmid vcpuid d := rely a_vm vmid vcpuid; unless_halted (hvc vmid vcpuid) d.
Definition prep_abort_spec vmid vcpuid d := rely a_vm vmid vcpuid; unless_halted (abort vmid vcpuid) d.
Definition sync_dirty_to_shadow_spec vmid vcpuid d :=
  rely a_vm vmid vcpuid;
  unless_halted (fun d => let dirty := context vmid vcpuid d DIRTY in rely is_int64 dirty; sync vmid vcpuid dirty d) d.
Definition reset_gp_regs_spec vmid vcpuid d := rely ids vmid vcpuid; unless_halted (gp_reset vmid vcpuid) d.
Definition reset_sys_regs_spec vmid vcpuid d :=
  rely a_vm vmid vcpuid; unless_halted (sys_reset sys_indices vmid vcpuid) d.
Definition update_exception_gp_regs_spec vmid vcpuid d :=
  rely a_vm vmid vcpuid;
  unless_halted (fun d =>
    let c := context vmid vcpuid d in
    let new_pc := exception_vector d (c PSTATE) in
    rely is_int64 (c PSTATE); rely is_int64 (c PC); rely is_int64 new_pc;
    Some (with_context vmid vcpuid (enter_exception (c PC) (c PSTATE) new_pc) d)) d.
Definition handle_fault vmid addr d : option RData :=
  let pte := core vmid 0 d in
  let level := core vmid 1 d in
  rely is_int64 pte; rely is_int64 level;
  prot_and_map_vm_s2pt vmid addr pte (if level =? 2 then 2 else 3) (core_advance vmid 2 d).
Definition post_handle_shadow_s2pt_fault_spec vmid vcpuid addr d :=
  rely a_vm vmid vcpuid; unless_halted (handle_fault vmid addr) d.

(* ---- VCPUOpsAux, level low *)

Definition prep_wfx_spec0 vmid vcpuid d := rely a_vm vmid vcpuid; set_shadow_dirty_bit vmid vcpuid DIRTY_PC_FLAG d.
Fixpoint reveal_low (l : list Z) vmid vcpuid d : option RData :=
  match l with
  | [] => Some d
  | i :: rest => run r := get_shadow_ctxt vmid vcpuid i d; rely is_int64 r; reveal_low rest vmid vcpuid d
  end.
Definition prep_hvc_spec0 vmid vcpuid d :=
  rely a_vm vmid vcpuid;
  run x0 := get_shadow_ctxt vmid vcpuid 0 d;
  rely is_int64 x0;
  run d1 := set_shadow_dirty_bit vmid vcpuid 1 d;
  let fn := Z.land x0 INVALID in
  if fn =? CPU_ON then reveal_low [1; 2; 3] vmid vcpuid d1
  else if (fn =? AFFINITY_INFO) || (fn =? AFFINITY_INFO64) then reveal_low [1; 2] vmid vcpuid d1
  else if fn =? SYSTEM_OFF then set_vm_poweroff vmid d1
  else Some d1.
Definition prep_abort_spec0 vmid vcpuid d :=
  rely a_vm vmid vcpuid;
  get esr , d1 := take_data vmid vcpuid d;
  rely is_int64 esr;
  let rd := Z.land (esr / 65536) 31 in
  run hpfar := get_shadow_ctxt vmid vcpuid HPFAR_EL2 d1;
  rely is_int64 hpfar; rely is_gfn (hpfar / 16);
  if hpfar / 16 * 4096 <? MAX_MMIO_ADDR then
    run d2 := set_shadow_dirty_bit vmid vcpuid DIRTY_PC_FLAG d1;
    if is_read esr then set_shadow_dirty_bit vmid vcpuid (Z.shiftl 1 rd) d2
    else reveal_low [rd] vmid vcpuid d2
  else Some d.
Fixpoint sync_low (l : list Z) vmid vcpuid dirty start d : option RData :=
  match l with
  | [] => Some d
  | i :: rest =>
      if dirty_bit dirty i then
        (* each round starts again from the state of before the loop *)
        get r , d1 := take_data vmid vcpuid start;
        rely is_int64 r;
        run d2 := set_shadow_ctxt vmid vcpuid i r d1;
        sync_low rest vmid vcpuid dirty start d2
      else sync_low rest vmid vcpuid dirty start d
  end.
Definition sync_dirty_to_shadow_spec0 vmid vcpuid d :=
  rely a_vm vmid vcpuid;
  run dirty := get_shadow_dirty_bit vmid vcpuid d;
  sync_low gprs vmid vcpuid dirty d d.
Definition reset_gp_regs_spec0 vmid vcpuid d :=
  rely a_vm vmid vcpuid;
  get pc , d1 := take_data vmid vcpuid d;
  rely is_int64 pc;
  get base , d2 := search_load_info vmid pc d1;
  rely is_int64 base;
  if base =? 0 then Some (panic d2) else
  run d3 := clear_shadow_gp_regs vmid vcpuid d2;
  get pstate , d4 := take_data vmid vcpuid d3;
  rely is_int64 pstate;
  run d5 := set_shadow_ctxt vmid vcpuid PSTATE pstate d4;
  run d6 := set_shadow_ctxt vmid vcpuid PC pc d5;
  reset_fp_regs vmid vcpuid d6.
Fixpoint sys_low (l : list Z) vmid vcpuid d : option RData :=
  match l with
  | [] => Some d
  | i :: rest =>
      run v := get_sys_reg_desc_val i d;
      rely is_int64 v;
      run d1 := set_shadow_ctxt vmid vcpuid i v d;
      sys_low rest vmid vcpuid d1
  end.
Definition reset_sys_regs_spec0 vmid vcpuid d := rely a_vm vmid vcpuid; sys_low sys_indices vmid vcpuid d.
Fixpoint set_all (l : list (Z * Z)) vmid vcpuid d : option RData :=
  match l with
  | [] => Some d
  | (i, v) :: rest => run d1 := set_shadow_ctxt vmid vcpuid i v d; set_all rest vmid vcpuid d1
  end.
Definition exception_writes pc pstate new_pc :=
  [(ELR_EL1, pc); (PC, new_pc); (PSTATE, 965); (SPSR_0, pstate); (ESR_EL1, 0)].
Definition update_exception_gp_regs_spec0 vmid vcpuid d :=
  rely a_vm vmid vcpuid;
  run pstate := get_shadow_ctxt vmid vcpuid PSTATE d;
  rely is_int64 pstate;
  run pc := get_shadow_ctxt vmid vcpuid PC d;
  rely is_int64 pc;
  let new_pc := exception_vector d pstate in
  rely is_int64 new_pc;
  set_all (exception_writes pc pstate new_pc) vmid vcpuid d.
Definition post_handle_shadow_s2pt_fault_spec0 vmid vcpuid addr d :=
  rely a_vm vmid vcpuid;
  get pte , d1 := take_core vmid vcpuid d;
  rely is_int64 pte;
  get level , d2 := take_core vmid vcpuid d1;
  rely is_int64 level;
  prot_and_map_vm_s2pt vmid addr pte (if level =? 2 then 2 else 3) d2.

(* ---- VCPUOpsAux, level body: a result that does not fit its C type stops the code *)

Definition prep_wfx_body vmid vcpuid d := set_shadow_dirty_bit vmid vcpuid DIRTY_PC_FLAG d.
Definition prep_hvc_body vmid vcpuid d :=
  run x0 := get_shadow_ctxt vmid vcpuid 0 d;
  rely is_int64 x0;
  run d1 := set_shadow_dirty_bit vmid vcpuid 1 d;
  let fn := Z.land x0 INVALID in
  if fn =? CPU_ON then reveal_low [1; 2; 3] vmid vcpuid d1
  else if (fn =? AFFINITY_INFO) || (fn =? AFFINITY_INFO64) then reveal_low [1; 2] vmid vcpuid d1
  else if fn =? SYSTEM_OFF then set_vm_poweroff vmid d1
  else Some d1.
(* 1 << n as a signed 32-bit shift, converted to 64 bits *)
Definition signed_bit n := if n =? 31 then 18446744071562067968 else Z.shiftl 1 n.
Definition prep_abort_body vmid vcpuid d :=
  get esr , d1 := take_data vmid vcpuid d;
  rely is_int64 esr;
  let rd := Z.land (esr / 65536) 31 in
  run hpfar := get_shadow_ctxt vmid vcpuid HPFAR_EL2 d1;
  rely is_int64 hpfar;
  if u64 (hpfar / 16 * 4096) <? MAX_MMIO_ADDR then
    run d2 := set_shadow_dirty_bit vmid vcpuid DIRTY_PC_FLAG d1;
    if is_read esr then set_shadow_dirty_bit vmid vcpuid (signed_bit rd) d2
    else reveal_low [rd] vmid vcpuid d2
  else Some d1.
Fixpoint sync_code (l : list Z) vmid vcpuid dirty d : option RData :=
  match l with
  | [] => Some d
  | i :: rest =>
      if dirty_bit dirty i then
        get r , d1 := take_data vmid vcpuid d;
        rely is_int64 r;
        run d2 := set_shadow_ctxt vmid vcpuid i r d1;
        sync_code rest vmid vcpuid dirty d2
      else sync_code rest vmid vcpuid dirty d
  end.
Definition sync_dirty_to_shadow_body vmid vcpuid d :=
  run dirty := get_shadow_dirty_bit vmid vcpuid d;
  rely is_int64 dirty;
  sync_code gprs vmid vcpuid dirty d.
Definition reset_gp_regs_body vmid vcpuid d :=
  get pc , d1 := take_data vmid vcpuid d;
  rely is_int64 pc;
  get base , d2 := search_load_info vmid pc d1;
  rely is_int64 base;
  if base =? 0 then Some (panic d2) else
  run d3 := clear_shadow_gp_regs vmid vcpuid d2;
  get pstate , d4 := take_data vmid vcpuid d3;
  rely is_int64 pstate;
  run d5 := set_shadow_ctxt vmid vcpuid PSTATE pstate d4;
  run d6 := set_shadow_ctxt vmid vcpuid PC pc d5;
  reset_fp_regs vmid vcpuid d6.
Definition mpidr vcpuid := 2 ^ 31 + Z.land vcpuid 15 + Z.land (vcpuid / 16) 255 * 256 + Z.land (vcpuid / 4096) 255 * 65536.
Fixpoint sys_code (l : list Z) vmid vcpuid d : option RData :=
  match l with
  | [] => Some d
  | i :: rest =>
      get v , d1 := (if i =? 1 then Some (mpidr vcpuid, d)
                else if i =? 4 then Some (read_actlr_el1 d)
                else run v := get_sys_reg_desc_val i d; Some (v, d));
      rely is_int64 v;
      run d2 := set_shadow_ctxt vmid vcpuid (i + 47) v d1;
      sys_code rest vmid vcpuid d2
  end.
Definition reset_sys_regs_body vmid vcpuid d := sys_code sys_indices vmid vcpuid d.
Definition update_exception_gp_regs_body vmid vcpuid d :=
  run pstate := get_shadow_ctxt vmid vcpuid PSTATE d;
  rely is_int64 pstate;
  run pc := get_shadow_ctxt vmid vcpuid PC d;
  rely is_int64 pc;
  let new_pc := exception_vector d pstate in
  rely is_int64 new_pc;
  set_all (exception_writes pc pstate new_pc) vmid vcpuid d.
Definition post_handle_shadow_s2pt_fault_body vmid vcpuid addr d :=
  get pte , d1 := take_core vmid vcpuid d;
  rely is_int64 pte;
  get level , d2 := take_core vmid vcpuid d1;
  rely is_int64 level;
  prot_and_map_vm_s2pt vmid addr pte (if level =? 2 then 2 else 3) d2.

(* ---- VCPUOps (section 5) *)

Definition exception_class hsr := Z.shiftr (Z.land hsr 4227858432) 26.

Definition save_shadow_kvm_regs_spec d : option RData :=
  if halt d then Some d else
  let vmid := cur_vmid d in
  let vcpuid := cur_vcpuid d in
  rely is_vmid vmid; rely is_vcpu vcpuid;
  let c := context vmid vcpuid d in
  rely is_int64 (c EC);
  if c EC =? 2 then
    rely is_int64 (c ESR_EL2);
    let class := exception_class (c ESR_EL2) in
    if class =? 1 then wfx vmid vcpuid d
    else if (class =? 18) || (class =? 22) then hvc vmid vcpuid d
    else if (class =? 32) || (class =? 36) then abort vmid vcpuid d
    else Some (panic d)
  else Some d.
Definition save_shadow_kvm_regs_spec0 d : option RData :=
  let vmid := get_cur_vmid d in
  rely is_vmid vmid;
  let vcpuid := get_cur_vcpuid d in
  rely is_vcpu vcpuid;
  run ec := get_shadow_ctxt vmid vcpuid EC d;
  rely is_int64 ec;
  if ec =? 2 then
    run hsr := get_shadow_ctxt vmid vcpuid ESR_EL2 d;
    rely is_int64 hsr;
    let class := exception_class hsr in
    if class =? 1 then prep_wfx_spec vmid vcpuid d
    else if (class =? 18) || (class =? 22) then prep_hvc_spec vmid vcpuid d
    else if (class =? 32) || (class =? 36) then prep_abort_spec vmid vcpuid d
    else Some (panic d)
  else Some d.
Definition save_shadow_kvm_regs_body d : option RData :=
  let vmid := get_cur_vmid d in
  rely is_int vmid;
  let vcpuid := get_cur_vcpuid d in
  rely is_int vcpuid;
  run ec := get_shadow_ctxt vmid vcpuid EC d;
  rely is_int64 ec;
  if ec =? 2 then
    run hsr := get_shadow_esr vmid vcpuid d;
    rely is_int64 hsr;
    let class := exception_class hsr in
    if class =? 1 then prep_wfx_spec vmid vcpuid d
    else if (class =? 18) || (class =? 22) then prep_hvc_spec vmid vcpuid d
    else if (class =? 32) || (class =? 36) then prep_abort_spec vmid vcpuid d
    else Some (panic d)
  else Some d.

Definition flag dirty bits := negb (Z.land dirty bits =? 0).
Definition keep_states (before c : Z -> Z) := (* pc is set afterwards *)
  put PSTATE (before PSTATE) (put DIRTY (before DIRTY) (put FLAGS (before FLAGS)
    (put ESR_EL1 (before ESR_EL1) (put SPSR_0 (before SPSR_0) c)))).
Definition restore_shadow_kvm_regs_spec d : option RData :=
  if halt d then Some d else
  let vmid := cur_vmid d in
  let vcpuid := cur_vcpuid d in
  rely is_vmid vmid; rely is_vcpu vcpuid;
  let dirty := context vmid vcpuid d DIRTY in
  rely is_int64 dirty;
  if dirty =? INVALID64 then
    run d1 := gp_reset vmid vcpuid d;
    if halt d1 then Some d1 else
    run d2 := sys_reset sys_indices vmid vcpuid d1;
    Some (with_context vmid vcpuid (put DIRTY 0) d2)
  else
    rely is_int64 (context vmid vcpuid d EC);
    run d1 := (if context vmid vcpuid d EC =? 2 then sync vmid vcpuid dirty d else Some d);
    let before := context vmid vcpuid d1 in
    let new_pc := exception_vector d1 (before PSTATE) in
    rely is_int64 (before PSTATE); rely is_int64 (before PC); rely is_int64 new_pc;
    let injected := if flag dirty PENDING_EXCEPT_INJECT_FLAG
                    then enter_exception (before PC) (before PSTATE) new_pc before else before in
    let skipped := if flag dirty DIRTY_PC_FLAG
                   then put PC (injected PC + 4) (keep_states before injected) else injected in
    let d2 := set_context vmid vcpuid (put FAR_EL2 0 (put DIRTY 0 skipped)) d1 in
    let addr := core vmid 0 d2 in
    rely is_int64 addr;
    let d3 := core_advance vmid 1 d2 in
    if (0 <? addr) && (addr <? 2 ^ 48) then handle_fault vmid addr d3 else Some d3.
Definition restore_shadow_kvm_regs_spec0 d : option RData :=
  let vmid := get_cur_vmid d in
  rely is_vmid vmid;
  let vcpuid := get_cur_vcpuid d in
  rely is_vcpu vcpuid;
  run dirty := get_shadow_ctxt vmid vcpuid DIRTY d;
  rely is_int64 dirty;
  if dirty =? INVALID64 then
    run d1 := reset_gp_regs_spec vmid vcpuid d;
    run d2 := reset_sys_regs_spec vmid vcpuid d1;
    set_shadow_dirty_bit vmid vcpuid 0 d2
  else
    run ec := get_shadow_ctxt vmid vcpuid EC d;
    rely is_int64 ec;
    run d1 := (if ec =? 2 then sync_dirty_to_shadow_spec vmid vcpuid d else Some d);
    run d2 := (if flag dirty PENDING_EXCEPT_INJECT_FLAG then update_exception_gp_regs_spec vmid vcpuid d1 else Some d1);
    run d3 := (if flag dirty DIRTY_PC_FLAG then
             run pc := get_shadow_ctxt vmid vcpuid PC d2;
             rely is_addr pc;
             set_shadow_ctxt vmid vcpuid PC (pc + 4) d2
           else Some d2);
    run d4 := set_shadow_dirty_bit vmid vcpuid 0 d3;
    run d5 := set_shadow_ctxt vmid vcpuid FAR_EL2 0 d4;
    get addr , d6 := take_core vmid vcpuid d5;
    rely is_int64 addr;
    if (0 <? addr) && (addr <? 2 ^ 48) then post_handle_shadow_s2pt_fault_spec vmid vcpuid addr d6 else Some d6.
Definition restore_shadow_kvm_regs_body d : option RData :=
  let vmid := get_cur_vmid d in
  rely is_int vmid;
  let vcpuid := get_cur_vcpuid d in
  rely is_int vcpuid;
  run dirty := get_shadow_ctxt vmid vcpuid DIRTY d;
  rely is_int64 dirty;
  if dirty =? INVALID64 then
    get inc_exe , d1 := is_inc_exe vmid d;
    rely is_int inc_exe;
    run d2 := (if inc_exe =? 0 then
             run d2 := reset_gp_regs_spec vmid vcpuid d1;
             reset_sys_regs_spec vmid vcpuid d2
           else Some d1);
    set_shadow_dirty_bit vmid vcpuid 0 d2
  else
    run ec := get_shadow_ctxt vmid vcpuid EC d;
    rely is_int64 ec;
    run d1 := (if ec =? 2 then sync_dirty_to_shadow_spec vmid vcpuid d else Some d);
    run d2 := (if flag dirty PENDING_EXCEPT_INJECT_FLAG then update_exception_gp_regs_spec vmid vcpuid d1 else Some d1);
    run d3 := (if flag dirty DIRTY_PC_FLAG then
             run pc := get_shadow_ctxt vmid vcpuid PC d2;
             rely is_int64 pc;
             set_shadow_ctxt vmid vcpuid PC (u64 (pc + 4)) d2
           else Some d2);
    run d4 := set_shadow_dirty_bit vmid vcpuid 0 d3;
    run d5 := set_shadow_ctxt vmid vcpuid FAR_EL2 0 d4;
    get addr , d6 := take_core vmid vcpuid d5;
    rely is_int64 addr;
    if (4096 <=? addr) && (addr <? 2 ^ 48) then post_handle_shadow_s2pt_fault_spec vmid vcpuid addr d6 else Some d6.
