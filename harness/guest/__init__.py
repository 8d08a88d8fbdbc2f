# SPDX-License-Identifier: Apache-2.0
"""Predict what guest code does between an entry and the next exit, by the Arm ARM.

:func:`harness.guest.predict_run.predict_run` is the entry point.  It calls :func:`harness.guest.walk.walk`, which
executes one instruction after the other.  Both take a :class:`harness.guest.context.GuestContext`.

Imported are ``arch``, ``gic``, ``scenario``, ``trace`` and the ground files.  A new instruction needs its effect in
``execute`` and, where it can trap, its syndrome in ``syndrome``.
"""
