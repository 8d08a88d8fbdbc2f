(* SPDX-License-Identifier: Apache-2.0 *)
(* The refinement of restore_shadow_kvm_regs, repaired: proved for every state under the weakest hypotheses of
   docs/lemmas.md, without an axiom. *)
Require Import ZArith List Bool Lia.
From Shadow Require Import Model.
Import ListNotations.
Open Scope Z_scope.

(* Equal, with contexts compared index by index: a context is a function here, and no axiom says that two functions
   with equal values are the same. *)
Definition agree d e :=
  (forall k i, shadow_ctxts d k i = shadow_ctxts e k i) /\ d = set_shadow_ctxts (shadow_ctxts d) e.
Lemma agree_refl d : agree d d.
Proof. split; [reflexivity|]. destruct d; reflexivity. Qed.

(* A mapping does not look at a context. *)
Definition blind (f : RData -> option RData) :=
  forall m d, f (set_shadow_ctxts m d) = option_map (set_shadow_ctxts m) (f d).
Lemma insert_blind vmid addr pte : blind (insert vmid addr pte).
Proof.
  intros m d. unfold insert. cbn [npts set_shadow_ctxts].
  destruct (pt (npts d vmid) (addr / 4096)) as [[x old] y].
  destruct (negb (old =? 2)); [|reflexivity].
  match goal with |- (if ?c then _ else _) = _ => destruct c; reflexivity end.
Qed.
Lemma acquire_blind id : blind (acquire id).
Proof. intros m d. unfold acquire, free. cbn [lock log set_shadow_ctxts]. destruct (_ && _); reflexivity. Qed.
Ltac blindly :=
  repeat match goal with
  | |- context [halt (set_shadow_ctxts ?m ?d)] => change (halt (set_shadow_ctxts m d)) with (halt d)
  | |- (if ?c then _ else _) = _ => destruct c; try reflexivity
  end.
Lemma map_page_blind vmid addr pte : blind (map_page vmid addr pte).
Proof.
  intros m d. unfold map_page. blindly. rewrite acquire_blind. destruct (acquire (5 + vmid) d) as [d1|]; [|reflexivity].
  cbn [option_map]. rewrite insert_blind. destruct (insert vmid addr _ d1); reflexivity.
Qed.
Lemma assign_blind vmid gfn pfn : blind (assign vmid gfn pfn).
Proof.
  intros m d. unfold assign. change (free 5 (set_shadow_ctxts m d)) with (free 5 d). blindly.
  rewrite acquire_blind. destruct (acquire 2 d) as [d1|]; [|reflexivity]. cbn [option_map].
  change (s2page (set_shadow_ctxts m d1)) with (s2page d1). destruct (s2page d1 pfn) as [[owner count] old].
  blindly. rewrite acquire_blind. destruct (acquire 5 d1) as [d2|]; [|reflexivity]. cbn [option_map].
  cbv zeta. set (d3 := set_s2page (upd (s2page d2) pfn (vmid, 0, gfn)) d2).
  change (set_s2page _ (set_shadow_ctxts m d2)) with (set_shadow_ctxts m d3).
  change (npts (set_shadow_ctxts m d3)) with (npts d3). destruct (pt (npts d3 0) pfn) as [[x level] pte].
  blindly. rewrite insert_blind. destruct (insert 0 _ _ d3); reflexivity.
Qed.
Lemma handle_fault_blind vmid addr : blind (handle_fault vmid addr).
Proof.
  intros m d. unfold handle_fault, prot_and_map_vm_s2pt.
  change (core vmid 0 (set_shadow_ctxts m d)) with (core vmid 0 d).
  change (core vmid 1 (set_shadow_ctxts m d)) with (core vmid 1 d).
  change (core_advance vmid 2 (set_shadow_ctxts m d)) with (set_shadow_ctxts m (core_advance vmid 2 d)).
  cbv zeta. blindly. rewrite assign_blind. destruct (assign _ _ _ _) as [d1|]; [|reflexivity].
  cbn [option_map]. apply map_page_blind.
Qed.

Lemma after_same m m' vmid addr d d' :
  handle_fault vmid addr (set_shadow_ctxts m d) = Some d' -> (forall k i, m k i = m' k i) ->
  exists e, handle_fault vmid addr (set_shadow_ctxts m' d) = Some e /\ agree d' e.
Proof.
  intros H S. rewrite handle_fault_blind in *. destruct (handle_fault vmid addr d) as [d1|]; [|discriminate].
  injection H as <-. exists (set_shadow_ctxts m' d1). split; [reflexivity|]. split; [exact S|]. now destruct d1.
Qed.

(* The register loop changes x0..x30 and a position. *)
Lemma fold_upd_other v i : 30 < i -> forall l, (forall k, In k l -> k <= 30) -> forall c : Z -> Z,
  fold_left (fun c k => upd c k v) l c i = c i.
Proof.
  intros I. induction l as [|k l IH]; intros L c; [reflexivity|]. cbn [fold_left]. rewrite IH.
  - unfold upd. destruct (i =? k) eqn:E; [|reflexivity]. apply Z.eqb_eq in E. specialize (L k (or_introl eq_refl)). lia.
  - intros. apply L. now right.
Qed.
Lemma sync_others vmid vcpuid dirty d d' i : 30 < i -> sync vmid vcpuid dirty d = Some d' ->
  context vmid vcpuid d' i = context vmid vcpuid d i /\ halt d' = halt d /\ exception_vector d' = exception_vector d
  /\ core_doracle d' = core_doracle d /\ core_data_log d' = core_data_log d.
Proof.
  intros I. unfold sync.
  assert (L : forall k, In k (filter (dirty_bit dirty) gprs) -> k <= 30).
  { intros k K. apply filter_In in K. destruct K as [K _]. unfold gprs in K. apply in_map_iff in K.
    destruct K as (n & <- & K). apply in_seq in K. lia. }
  destruct (filter _ gprs) as [|k0 l].
  - intros H. injection H as <-. repeat split.
  - destruct (is_int64 _); [|discriminate]. intros H. injection H as <-. split; [|repeat split].
    unfold context, advance, with_context, set_context. cbn [shadow_ctxts set_data_log set_shadow_ctxts].
    unfold upd at 1. rewrite Z.eqb_refl. exact (fold_upd_other _ i I (k0 :: l) L _).
Qed.
Lemma sys_reset_halt vmid vcpuid l : forall d d', sys_reset l vmid vcpuid d = Some d' -> halt d' = halt d.
Proof.
  induction l as [|i l IH]; intros d d' H; [now injection H as <-|]. cbn [sys_reset] in H.
  cbv zeta in H. destruct (is_int64 _); [|discriminate]. apply IH in H. exact H.
Qed.

(* x is d with another context of this vCPU: c. *)
Definition from vmid vcpuid d (c : Z -> Z) x :=
  exists m, x = set_shadow_ctxts m d /\ m (ctxt_id vmid vcpuid) = c
    /\ forall k, (k =? ctxt_id vmid vcpuid) = false -> m k = shadow_ctxts d k.
Lemma from_refl vmid vcpuid d : from vmid vcpuid d (context vmid vcpuid d) d.
Proof. exists (shadow_ctxts d). repeat split. now destruct d. Qed.
Lemma from_context vmid vcpuid d c x : from vmid vcpuid d c x -> context vmid vcpuid x = c.
Proof. intros (m & -> & M & _). exact M. Qed.
Lemma from_set vmid vcpuid d c c' x : from vmid vcpuid d c x -> from vmid vcpuid d c' (set_context vmid vcpuid c' x).
Proof.
  intros (m & -> & _ & N). exists (upd m (ctxt_id vmid vcpuid) c'). split; [reflexivity|].
  split; [unfold upd; now rewrite Z.eqb_refl|]. intros k K. unfold upd. rewrite K. exact (N k K).
Qed.
Lemma from_write vmid vcpuid d c x i v : ids vmid vcpuid = true -> halt d = false -> from vmid vcpuid d c x ->
  exists y, set_shadow_ctxt vmid vcpuid i v x = Some y /\ from vmid vcpuid d (write_field c i v) y.
Proof.
  intros I H F. eexists. split; [|eapply from_set; exact F].
  unfold set_shadow_ctxt. rewrite (from_context _ _ _ _ _ F), I. destruct F as (m & -> & _).
  cbn [halt set_shadow_ctxts]. now rewrite H.
Qed.

(* restore_shadow_kvm_regs_spec to _spec0.  The three hypotheses are those of the page: no VM, PC of 2^48 and more,
   exception and skip.  Each is the weakest one: in every state that it excludes the two sides differ. *)
Theorem restore_spec_low : forall d d',
  let vmid := cur_vmid d in
  let c := context vmid (cur_vcpuid d) d in
  let skip := flag (c DIRTY) DIRTY_PC_FLAG in
  let inject := flag (c DIRTY) PENDING_EXCEPT_INJECT_FLAG in
  let reset := c DIRTY =? INVALID64 in
  (halt d = false ->
     is_vm vmid = true \/
     reset = false /\ c EC <> 2 /\ inject = false /\ ~ 0 < core vmid 0 d < 2 ^ 48) ->
  (halt d = false -> reset = false -> skip = true ->
     is_addr (if inject then exception_vector d (c PSTATE) else c PC) = true) ->
  (halt d = false -> reset = false -> skip = true -> inject = true ->
     c PSTATE = 965 /\ c SPSR_0 = 965 /\ c ESR_EL1 = 0) ->
  restore_shadow_kvm_regs_spec d = Some d' -> exists e, restore_shadow_kvm_regs_spec0 d = Some e /\ agree d' e.
Proof.
  intros d d' vmid c skip inject reset Vm Addr Both H.
  unfold restore_shadow_kvm_regs_spec in H.
  destruct (halt d) eqn:Halt.
  { exists d. injection H as <-. split; [|apply agree_refl].
    unfold restore_shadow_kvm_regs_spec0, get_cur_vmid, get_cur_vcpuid, get_shadow_ctxt, set_shadow_dirty_bit,
      set_shadow_ctxt, take_core. repeat (rewrite Halt; cbn). reflexivity. }
  fold vmid in H.
  destruct (is_vmid vmid) eqn:V; [|discriminate]. destruct (is_vcpu (cur_vcpuid d)) eqn:C; [|discriminate].
  fold c in H. destruct (is_int64 (c DIRTY)) eqn:D; [|discriminate].
  specialize (Vm eq_refl). specialize (Addr eq_refl). specialize (Both eq_refl).
  unfold restore_shadow_kvm_regs_spec0, get_cur_vmid, get_cur_vcpuid, get_shadow_ctxt, ids. rewrite Halt.
  fold vmid. rewrite V, C. cbn [andb]. fold c. change (read_field c DIRTY) with (c DIRTY). rewrite D.
  change (read_field c EC) with (c EC). fold reset in H |- *. destruct reset eqn:R.
  - destruct Vm as [Vm|[Vm _]]; [|discriminate].
    unfold reset_gp_regs_spec, reset_sys_regs_spec, ids, a_vm, unless_halted, set_shadow_dirty_bit, set_shadow_ctxt.
    unfold ids.
    rewrite Halt, V, C, Vm. cbn [andb].
    destruct (gp_reset vmid (cur_vcpuid d) d) as [d1|]; [|discriminate].
    destruct (halt d1) eqn:H1.
    + injection H as <-. rewrite H1. exists d1. split; [reflexivity|apply agree_refl].
    + destruct (sys_reset _ _ _ d1) as [d2|] eqn:S; [|discriminate]. injection H as <-.
      rewrite (sys_reset_halt _ _ _ _ _ S), H1. eexists. split; [reflexivity|apply agree_refl].
  - destruct (is_int64 (c EC)) eqn:E; [|discriminate].
    assert (P : exists d1, (if c EC =? 2 then sync vmid (cur_vcpuid d) (c DIRTY) d else Some d) = Some d1
      /\ (if c EC =? 2 then sync_dirty_to_shadow_spec vmid (cur_vcpuid d) d else Some d) = Some d1
      /\ halt d1 = false /\ exception_vector d1 = exception_vector d
      /\ core vmid 0 d1 = core vmid 0 d
      /\ forall i, 30 < i -> context vmid (cur_vcpuid d) d1 i = c i).
    { destruct (c EC =? 2) eqn:T.
      - destruct (sync vmid (cur_vcpuid d) (c DIRTY) d) as [d1|] eqn:S; [|discriminate]. exists d1.
        assert (O : forall i, 30 < i -> _) by (intros i I; exact (sync_others _ _ _ _ _ i I S)).
        destruct (O 32 ltac:(lia)) as (_ & O1 & O2 & O3 & O4).
        split; [reflexivity|]. split.
        { unfold sync_dirty_to_shadow_spec, a_vm, unless_halted.
          destruct Vm as [Vm|(_ & N & _)]; [|apply Z.eqb_eq in T; contradiction].
          rewrite Vm, C, Halt. cbn [andb]. fold c. rewrite D. exact S. }
        rewrite O1, O2. split; [exact Halt|]. split; [reflexivity|].
        split; [unfold core; rewrite O3, O4; reflexivity|]. intros i I. apply (O i I).
      - exists d. repeat split; assumption. }
    destruct P as (d1 & P & Q & H1 & X & K & O). rewrite P in H. rewrite Q. clear P Q.
    set (b := context vmid (cur_vcpuid d) d1) in *.
    assert (OS : b PSTATE = c PSTATE) by (apply O; reflexivity).
    assert (OP : b PC = c PC) by (apply O; reflexivity).
    assert (OE : b ESR_EL1 = c ESR_EL1) by (apply O; reflexivity).
    assert (O0 : b SPSR_0 = c SPSR_0) by (apply O; reflexivity).
    destruct (is_int64 (b PSTATE)) eqn:I1; [|discriminate].
    destruct (is_int64 (b PC)) eqn:I2; [|discriminate].
    destruct (is_int64 (exception_vector d1 (b PSTATE))) eqn:I3; [|discriminate].
    fold inject in H |- *. fold skip in H |- *.
    assert (I : ids vmid (cur_vcpuid d) = true) by (unfold ids; now rewrite V, C).
    set (vcpuid := cur_vcpuid d) in *.
    set (c2 := if inject then enter_exception (b PC) (b PSTATE) (exception_vector d1 (b PSTATE)) b else b) in *.
    assert (S2 : exists x, (if inject then update_exception_gp_regs_spec vmid vcpuid d1 else Some d1) = Some x
                           /\ from vmid vcpuid d1 c2 x).
    { unfold c2. destruct inject.
      - unfold update_exception_gp_regs_spec, a_vm, unless_halted.
        destruct Vm as [Vm|(_ & _ & N & _)]; [|discriminate]. rewrite Vm, C, H1. cbn [andb]. fold b.
        rewrite I1, I2, I3. eexists. split; [reflexivity|]. eapply from_set. apply from_refl.
      - exists d1. split; [reflexivity|apply from_refl]. }
    destruct S2 as (x2 & -> & F2).
    set (c3 := if skip then write_field c2 PC (c2 PC + 4) else c2).
    assert (S3 : exists x, (if skip then
        match (if halt x2 then Some 0 else rely ids vmid vcpuid; Some (read_field (context vmid vcpuid x2) PC)) with
        | Some pc => if is_addr pc then set_shadow_ctxt vmid vcpuid PC (pc + 4) x2 else None
        | None => None
        end else Some x2) = Some x /\ from vmid vcpuid d1 c3 x).
    { unfold c3. destruct skip; [|exists x2; split; [reflexivity|exact F2]].
      assert (Hx : halt x2 = false) by (destruct F2 as (m & -> & _); exact H1).
      rewrite Hx, I, (from_context _ _ _ _ _ F2). change (read_field c2 PC) with (c2 PC).
      assert (A : is_addr (c2 PC) = true).
      { specialize (Addr eq_refl eq_refl). unfold c2. destruct inject.
        - change (is_addr (exception_vector d1 (b PSTATE)) = true). rewrite X, OS. exact Addr.
        - rewrite OP. exact Addr. }
      rewrite A. apply from_write; assumption. }
    destruct S3 as (x3 & S3 & F3). unfold ids in S3 at 1. rewrite V, C in S3. cbn [andb] in S3. rewrite S3. clear S3.
    destruct (from_write vmid vcpuid d1 c3 x3 DIRTY 0 I H1 F3) as (x4 & S4 & F4).
    unfold set_shadow_dirty_bit. rewrite S4. clear S4.
    destruct (from_write vmid vcpuid d1 _ x4 FAR_EL2 0 I H1 F4) as (x5 & S5 & F5). rewrite S5. clear S5.
    destruct F5 as (m & -> & M & N).
    unfold take_core. change (halt (set_shadow_ctxts m d1)) with (halt d1). rewrite H1, I.
    change (core vmid 0 (set_shadow_ctxts m d1)) with (core vmid 0 d1).
    change (core_advance vmid 1 (set_shadow_ctxts m d1)) with (set_shadow_ctxts m (core_advance vmid 1 d1)).
    cbv zeta in H.
    match type of H with context [set_context vmid vcpuid ?cs d1] => set (last := cs) in H end.
    change (core vmid 0 (set_context vmid vcpuid last d1)) with (core vmid 0 d1) in H.
    change (core_advance vmid 1 (set_context vmid vcpuid last d1))
      with (set_shadow_ctxts (upd (shadow_ctxts d1) (ctxt_id vmid vcpuid) last) (core_advance vmid 1 d1)) in H.
    assert (L : forall i, last i = m (ctxt_id vmid vcpuid) i).
    { intros i. rewrite M. unfold last, c3. destruct skip; [|reflexivity].
      change (write_field (write_field (write_field c2 PC (c2 PC + 4)) DIRTY 0) FAR_EL2 0)
        with (put FAR_EL2 0 (put DIRTY 0 (put PC (c2 PC + 4) c2))).
      assert (G : forall j, b j = c2 j \/ ~ In j [PSTATE; FLAGS; ESR_EL1; SPSR_0]).
      { intros j. unfold c2. destruct inject; [|left; reflexivity].
        destruct (Both eq_refl eq_refl eq_refl) as (B1 & B2 & B3).
        destruct (in_dec Z.eq_dec j [PSTATE; FLAGS; ESR_EL1; SPSR_0]) as [J|J]; [left|right; exact J].
        destruct J as [<-|[<-|[<-|[<-|[]]]]].
        - rewrite OS, B1. reflexivity.
        - reflexivity.
        - rewrite OE, B3. reflexivity.
        - change (b SPSR_0 = b PSTATE). now rewrite O0, OS, B1, B2. }
      specialize (G i). cbn [In] in G. unfold put, upd, keep_states, put, upd.
      destruct (i =? FAR_EL2); [reflexivity|]. destruct (i =? DIRTY) eqn:Z1; [reflexivity|].
      destruct (i =? PC); [reflexivity|].
      repeat match goal with
      | |- context [i =? ?j] => let Z := fresh in destruct (i =? j) eqn:Z; [apply Z.eqb_eq in Z; subst i|]
      end; try reflexivity; destruct G as [G|G]; try exact G; exfalso; apply G; tauto. }
    assert (W : forall k i, upd (shadow_ctxts d1) (ctxt_id vmid vcpuid) last k i = m k i).
    { intros k i. unfold upd. destruct (k =? ctxt_id vmid vcpuid) eqn:Ke.
      - apply Z.eqb_eq in Ke. subst k. apply L.
      - now rewrite (N k Ke). }
    destruct (is_int64 (core vmid 0 d1)); [|discriminate].
    destruct ((0 <? core vmid 0 d1) && (core vmid 0 d1 <? 2 ^ 48)) eqn:A.
    + unfold post_handle_shadow_s2pt_fault_spec, a_vm, unless_halted.
      change (halt (set_shadow_ctxts m (core_advance vmid 1 d1))) with (halt d1).
      destruct Vm as [Vm|(_ & _ & _ & Vm)].
      * rewrite Vm, C, H1. cbn [andb]. eapply after_same; [exact H|exact W].
      * exfalso. apply Vm. rewrite <- K. apply andb_true_iff in A. rewrite !Z.ltb_lt in A. exact A.
    + injection H as <-. eexists. split; [reflexivity|]. split; [exact W|reflexivity].
Qed.
