# SPDX-License-Identifier: Apache-2.0
"""Use QEMU plugins (TCG): count edges of KVM's code, record pKVM's hyp copy of a vCPU."""
