(* SPDX-License-Identifier: Apache-2.0 *)
(* The statements that hold, as they stand or repaired: proved for every state, without an axiom.

   The left side is what the statement's premise runs, the right side what its conclusion runs. *)
Require Import ZArith List Bool Lia.
From Shadow Require Import Model.
Import ListNotations.
Open Scope Z_scope.

(* Follow the left side, branch by branch; every decision that it took is rewritten in the goal. *)
Ltac follow :=
  match goal with
  | H : None = Some _ |- _ => discriminate H
  | H : (if ?c then _ else _) = Some _ |- _ =>
      let E := fresh "E" in destruct c eqn:E; try discriminate H; rewrite ?E
  | H : match ?o with Some _ => _ | None => None end = Some _ |- _ =>
      let E := fresh "E" in destruct o eqn:E; try discriminate H; rewrite ?E
  | H : (let (_, _) := ?p in _) = Some _ |- _ =>
      let E := fresh "E" in destruct p eqn:E; rewrite ?E
  end.

Ltac bounds :=
  unfold is_int, is_int64, is_vmid, is_vm, is_vcpu, is_addr in *;
  rewrite ?andb_true_iff, ?andb_false_iff, ?Z.ltb_lt, ?Z.leb_le, ?Z.ltb_ge, ?Z.leb_gt in *; lia.

Lemma vmid_is_int v : is_vmid v = true -> is_int v = true.
Proof. intros; bounds. Qed.
Lemma vcpu_is_int v : is_vcpu v = true -> is_int v = true.
Proof. intros; bounds. Qed.
Lemma vm_is_vmid v : is_vm v = true -> is_vmid v = true.
Proof. intros; bounds. Qed.
Lemma addr_is_int64 v : is_addr v = true -> is_int64 v = true.
Proof. intros; bounds. Qed.
Lemma addr_does_not_wrap v : is_addr v = true -> u64 (v + 4) = v + 4.
Proof. intros. unfold u64. apply Z.mod_small. bounds. Qed.

(* save_shadow_kvm_regs_body_correct, as it stands. *)
Theorem save_low_body : forall d d',
  save_shadow_kvm_regs_spec0 d = Some d' -> save_shadow_kvm_regs_body d = Some d'.
Proof.
  intros d d' H. unfold save_shadow_kvm_regs_spec0 in H. unfold save_shadow_kvm_regs_body, get_shadow_esr.
  do 2 follow. rewrite (vmid_is_int _ E), (vcpu_is_int _ E0). repeat follow; assumption.
Qed.

(* The refinement of save_shadow_kvm_regs, repaired: a VM's vCPU is the current one wherever a helper is called. *)
Theorem save_spec_low : forall d d',
  let c := context (cur_vmid d) (cur_vcpuid d) d in
  (halt d = false ->
     is_vm (cur_vmid d) = true \/ c EC <> 2 \/ ~ In (exception_class (c ESR_EL2)) [1; 18; 22; 32; 36]) ->
  save_shadow_kvm_regs_spec d = Some d' -> save_shadow_kvm_regs_spec0 d = Some d'.
Proof.
  intros d d' c V H. unfold save_shadow_kvm_regs_spec in H.
  unfold save_shadow_kvm_regs_spec0, get_cur_vmid, get_cur_vcpuid, get_shadow_ctxt, ids, read_field.
  destruct (halt d) eqn:Halt; [injection H as <-; reflexivity|]. specialize (V eq_refl).
  do 2 follow. cbn [andb].
  change (has_field EC) with true. change (has_field ESR_EL2) with true. cbn iota.
  unfold prep_wfx_spec, prep_hvc_spec, prep_abort_spec, a_vm, unless_halted.
  rewrite Halt, E0. subst c. cbv zeta in *. repeat (follow; try assumption).
  all: replace (is_vm (cur_vmid d)) with true; [assumption|].
  all: destruct V as [V|[V|V]]; [congruence| |]; exfalso; apply V.
  all: rewrite ?orb_true_iff, ?Z.eqb_eq in *; cbn [In]; intuition.
Qed.

(* What restore does before it asks for the fault address leaves that address as it is. *)
Definition keeps d d' :=
  core_doracle d' = core_doracle d /\ core_data_log d' = core_data_log d /\ halt d' = halt d.
Lemma keeps_refl d : keeps d d.
Proof. repeat split. Qed.
Lemma keeps_trans a b c : keeps a b -> keeps b c -> keeps a c.
Proof. unfold keeps. intuition congruence. Qed.
Ltac kept := repeat (follow; cbn beta zeta in * );
  match goal with H : Some _ = Some _ |- _ => injection H as <-; repeat split; assumption || reflexivity end.
Lemma set_keeps vmid vcpuid i v d d' : set_shadow_ctxt vmid vcpuid i v d = Some d' -> keeps d d'.
Proof. unfold set_shadow_ctxt. intros H. kept. Qed.
Lemma sync_keeps vmid vcpuid d d' : sync_dirty_to_shadow_spec vmid vcpuid d = Some d' -> keeps d d'.
Proof.
  unfold sync_dirty_to_shadow_spec, unless_halted, sync. intros H. do 2 follow; [kept|]. follow.
  destruct (filter _ gprs); kept.
Qed.
Lemma update_keeps vmid vcpuid d d' : update_exception_gp_regs_spec vmid vcpuid d = Some d' -> keeps d d'.
Proof. unfold update_exception_gp_regs_spec, unless_halted. intros H. kept. Qed.

Ltac takes x E :=
  match goal with
  | H : match ?o with Some _ => _ | None => None end = Some _ |- _ =>
      destruct o as [x|] eqn:E; [|discriminate H]; rewrite ?E
  end.

(* restore_shadow_kvm_regs_body_correct, repaired: no reset, and no fault in the first page. *)
Theorem restore_low_body : forall d d',
  (halt d = false -> context (cur_vmid d) (cur_vcpuid d) d DIRTY <> INVALID64) ->
  (halt d = false -> ~ 0 < core (cur_vmid d) 0 d < 4096) ->
  restore_shadow_kvm_regs_spec0 d = Some d' -> restore_shadow_kvm_regs_body d = Some d'.
Proof.
  intros d d' Dirty Page H. unfold restore_shadow_kvm_regs_spec0 in H. unfold restore_shadow_kvm_regs_body.
  do 2 follow. rewrite (vmid_is_int _ E), (vcpu_is_int _ E0).
  takes z E1. follow.
  assert (N : (z =? INVALID64) = false).
  { apply Z.eqb_neq. unfold get_shadow_ctxt, get_cur_vmid, get_cur_vcpuid in E1.
    destruct (halt d) eqn:Halt; [injection E1 as <-; discriminate|].
    destruct (ids _ _); [|discriminate]. injection E1 as <-. apply Dirty. reflexivity. }
  rewrite N in *.
  takes z0 E3. follow.
  takes d1 E5. assert (K1 : keeps d d1).
  { destruct (z0 =? 2); [eapply sync_keeps; eassumption|]. injection E5 as <-. apply keeps_refl. }
  takes d2 E6. assert (K2 : keeps d d2).
  { destruct (flag z PENDING_EXCEPT_INJECT_FLAG).
    - eapply keeps_trans; [eassumption|]. eapply update_keeps; eassumption.
    - injection E6 as <-. assumption. }
  takes d3 E7.
  assert (S : (if flag z DIRTY_PC_FLAG then
                 match get_shadow_ctxt (get_cur_vmid d) (get_cur_vcpuid d) PC d2 with
                 | Some pc => if is_int64 pc
                              then set_shadow_ctxt (get_cur_vmid d) (get_cur_vcpuid d) PC (u64 (pc + 4)) d2 else None
                 | None => None
                 end
               else Some d2) = Some d3 /\ keeps d d3).
  { destruct (flag z DIRTY_PC_FLAG).
    - destruct (get_shadow_ctxt _ _ PC d2) as [z1|]; [|discriminate].
      destruct (is_addr z1) eqn:A; [|discriminate].
      rewrite (addr_is_int64 _ A), (addr_does_not_wrap _ A). split; [assumption|].
      eapply keeps_trans; [eassumption|]. eapply set_keeps; eassumption.
    - injection E7 as <-. split; [reflexivity|assumption]. }
  destruct S as [S K3]. rewrite S.
  takes d4 E8. takes d5 E9.
  assert (K : keeps d d5).
  { eapply keeps_trans; [eassumption|]. eapply keeps_trans; eapply set_keeps; eassumption. }
  takes p E10. destruct p as [addr d6].
  destruct (is_int64 addr); [|discriminate H].
  assert (P : (0 <? addr) && (addr <? 2 ^ 48) = (4096 <=? addr) && (addr <? 2 ^ 48)).
  { f_equal. destruct K as (C1 & C2 & C3). unfold take_core in E10. rewrite C3 in E10.
    unfold get_cur_vmid, get_cur_vcpuid in E10.
    destruct (halt d) eqn:Halt; [injection E10 as <- <-; reflexivity|].
    destruct (ids _ _); [|discriminate]. injection E10 as A _.
    unfold core in A. rewrite C1, C2 in A. fold (core (cur_vmid d) 0 d) in A. subst addr.
    specialize (Page eq_refl). revert Page. generalize (core (cur_vmid d) 0 d). intros a Page.
    destruct (0 <? a) eqn:L, (4096 <=? a) eqn:M; try reflexivity;
      rewrite ?Z.ltb_lt, ?Z.leb_le, ?Z.ltb_ge, ?Z.leb_gt in *; lia. }
  rewrite <- P. assumption.
Qed.

(* The helpers whose claims hold as they stand. *)
Ltac same_after_rely := intros; match goal with H : _ = Some _ |- _ => revert H end; destruct (a_vm _ _);
  [exact (fun H => H)|discriminate].
Theorem prep_wfx_low_body : forall vmid vcpuid d d',
  prep_wfx_spec0 vmid vcpuid d = Some d' -> prep_wfx_body vmid vcpuid d = Some d'.
Proof. unfold prep_wfx_spec0. same_after_rely. Qed.
Theorem prep_hvc_low_body : forall vmid vcpuid d d',
  prep_hvc_spec0 vmid vcpuid d = Some d' -> prep_hvc_body vmid vcpuid d = Some d'.
Proof. unfold prep_hvc_spec0. same_after_rely. Qed.
Theorem reset_gp_regs_low_body : forall vmid vcpuid d d',
  reset_gp_regs_spec0 vmid vcpuid d = Some d' -> reset_gp_regs_body vmid vcpuid d = Some d'.
Proof. unfold reset_gp_regs_spec0. same_after_rely. Qed.
Theorem update_exception_gp_regs_low_body : forall vmid vcpuid d d',
  update_exception_gp_regs_spec0 vmid vcpuid d = Some d' -> update_exception_gp_regs_body vmid vcpuid d = Some d'.
Proof. unfold update_exception_gp_regs_spec0. same_after_rely. Qed.
Theorem post_handle_shadow_s2pt_fault_low_body : forall vmid vcpuid addr d d',
  post_handle_shadow_s2pt_fault_spec0 vmid vcpuid addr d = Some d' ->
  post_handle_shadow_s2pt_fault_body vmid vcpuid addr d = Some d'.
Proof. unfold post_handle_shadow_s2pt_fault_spec0. same_after_rely. Qed.

(* prep_abort, repaired: an MMIO address, and no load into XZR. *)
Theorem prep_abort_low_body : forall vmid vcpuid d d',
  (halt d = false -> context vmid vcpuid d HPFAR_EL2 < 4194304) ->
  (halt d = false -> is_read (data vmid 0 d) = true -> Z.land (data vmid 0 d / 65536) 31 <> 31) ->
  prep_abort_spec0 vmid vcpuid d = Some d' -> prep_abort_body vmid vcpuid d = Some d'.
Proof.
  intros vmid vcpuid d d' Mmio Rd H. unfold prep_abort_spec0 in H. unfold prep_abort_body.
  destruct (a_vm vmid vcpuid); [|discriminate].
  takes p E. destruct p as [esr d1]. follow.
  takes hpfar E1. follow.
  destruct (is_gfn (hpfar / 16)) eqn:G; [|discriminate].
  assert (W : u64 (hpfar / 16 * 4096) = hpfar / 16 * 4096).
  { unfold u64. apply Z.mod_small. unfold is_gfn in G. bounds. }
  rewrite W.
  destruct (hpfar / 16 * 4096 <? MAX_MMIO_ADDR) eqn:M.
  - takes d2 E3. destruct (is_read esr) eqn:R; [|assumption].
    unfold signed_bit. destruct (Z.land (esr / 65536) 31 =? 31) eqn:X; [|assumption].
    exfalso. unfold take_data in E. destruct (halt d) eqn:Halt.
    + injection E as <- <-. discriminate X.
    + destruct (ids _ _); [|discriminate]. injection E as <- _. apply Z.eqb_eq in X.
      exact (Rd eq_refl R X).
  - exfalso. apply Z.ltb_ge in M. unfold take_data, get_shadow_ctxt in *.
    destruct (halt d) eqn:Halt.
    + injection E as <- <-. rewrite Halt in E1. injection E1 as <-. apply M; reflexivity.
    + destruct (ids _ _); [|discriminate]. injection E as <- <-. cbn [halt advance set_data_log] in E1.
      rewrite Halt in E1. injection E1 as <-. specialize (Mmio eq_refl).
      assert (A : 1073741824 <= context vmid vcpuid d HPFAR_EL2 / 16 * 4096) by exact M.
      assert (context vmid vcpuid d HPFAR_EL2 / 16 < 262144) by (apply Z.div_lt_upper_bound; lia). lia.
Qed.

(* The helpers' refinements that hold as they stand. *)
Theorem prep_wfx_spec_low : forall vmid vcpuid d d',
  prep_wfx_spec vmid vcpuid d = Some d' -> prep_wfx_spec0 vmid vcpuid d = Some d'.
Proof.
  unfold prep_wfx_spec, prep_wfx_spec0, unless_halted, set_shadow_dirty_bit, set_shadow_ctxt, a_vm, ids.
  intros vmid vcpuid d d' H. destruct (is_vm vmid) eqn:V; [|discriminate]. rewrite (vm_is_vmid _ V).
  destruct (is_vcpu vcpuid); [|discriminate]. destruct (halt d); exact H.
Qed.
