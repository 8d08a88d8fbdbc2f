# SPDX-License-Identifier: Apache-2.0
"""The compiled checker: the modules that take most of a check's time, made into extension modules by mypyc.

``shadowfuzz setup`` translates the modules of ``modules`` as they are and keeps the result in the cache,
under a hash of all sources that can change what they do and of the Python that runs them (``build``).  A command or a
worker asks for that hash before it imports any of them (``use``): if the cache has it, Python's import finds the
extension modules, else it finds the sources, as ever.  So an edited source never meets an old build, both give the same
results, and ``SHADOWFUZZ_PURE=1`` leaves the build alone.  pytest always imports the sources.

Imports ``harness/vm`` (cache and tools) alone: nothing here may import what is to be compiled.
"""
