# SPDX-License-Identifier: Apache-2.0
"""The migrations, one module a version, in the order of their names."""
