# SPDX-License-Identifier: Apache-2.0
"""Kernels as files: fetch them, read image, symbols, BTF and DWARF, find KVM's functions and structures."""
