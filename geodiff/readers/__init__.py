# SPDX-License-Identifier: Apache-2.0
"""Readers of files through compiled libraries that damaged files can crash or hang: 3dm, IGES, STEP, LAS and LAZ.

They run in a process of their own (`geodiff.readers.apart`), which must start quickly: so what is here, but for
`apart`, imports NumPy, the library of the format and nothing else; torch least of all.
"""
