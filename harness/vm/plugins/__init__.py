# SPDX-License-Identifier: Apache-2.0
"""QEMU plugins (TCG): count edges of KVM's code, show the hypervisor's own copy of a vCPU."""
