# SPDX-License-Identifier: Apache-2.0
"""Keep findings and runs in a database, and memory dumps beside it; read them again with their explanation."""
