"""The one part of the build that pyproject.toml cannot say: optional C++ libraries, without which everything runs slower.

`python setup.py build_ext --inplace` builds them in a checkout.
"""

import os
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildLibrary(build_ext):
    """Builds a plain shared library, loaded with ctypes: it is no Python module and exports no ``PyInit``."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()  # one source takes half of the time of all four

    def get_export_symbols(self, ext):
        return ext.export_symbols

    def build_extension(self, ext):
        """Copies what an earlier build left in this checkout where nothing that it was made of is newer."""
        made = Path(self.get_ext_fullpath(ext.name))
        there = Path(*ext.name.split(".")).with_name(made.name)
        built_from = [*ext.sources, *ext.depends, __file__]
        if not self.force and there.is_file() and there.stat().st_mtime > max(map(os.path.getmtime, built_from)):
            if made.resolve() != there.resolve():
                made.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(there, made)
            return
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = ["/O2", "/std:c++17", "/EHsc", "/fp:precise"]
        else:
            # No -march: a wheel must run on any machine of its platform; the source picks the instructions when loaded.
            ext.extra_compile_args = [
                "-O3",
                "-g0",
                "-std=c++17",
                "-ffp-contract=off",
                "-fno-trapping-math",
                "-fvisibility=hidden",
                "-pthread",
            ]
            ext.extra_link_args = ["-pthread"]
        super().build_extension(ext)


kernel = {"language": "c++", "optional": True, "depends": ["backends/kernels/common.hpp"]}
network = {"language": "c++", "optional": True, "depends": ["sims/networks/ahead.hpp"]}

setup(
    ext_modules=[
        Extension("backends.kernels._scan", ["backends/kernels/scan.cpp"], **kernel),
        Extension("backends.kernels._spikes", ["backends/kernels/spikes.cpp"], **kernel),
        Extension("sims.networks._network", ["sims/networks/network.cpp"], **network),
        Extension("sims.mapping._mapping", ["sims/mapping/refine.cpp"], language="c++", optional=True),
    ],
    cmdclass={"build_ext": BuildLibrary},
)
