# SPDX-License-Identifier: Apache-2.0
"""Handle kernels as files: fetch them, read image, symbols, BTF and DWARF, find KVM's functions and structures."""
