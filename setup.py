"""Packaging of amago_ray: metadata, dependencies, extras and the command line's entry point."""

import shutil
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent

REQUIRES = [
    "gymnasium>=1.2",
    "imageio>=2.37",
    "numpy>=2.0",
    "pillow>=11",
    "pyarrow>=20",
    "pydantic>=2.10",
    "pyyaml>=6.0.2",
    "ray[default,rllib]>=2.56",
    "rich>=14",
    "safetensors>=0.5",
    "tensorboard>=2.19",
    "torch>=2.11",
    "typer>=0.16",
]

EXTRAS = {
    "flash-attn": ["flash-attn>=2.7"],
    "dev": [
        "hypothesis>=6.130",
        "import-linter>=2.16",
        "jaxtyping>=0.3",
        "matplotlib>=3.10",
        "mypy>=1.15",
        "pytest>=8.3",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff>=0.11",
        "types-PyYAML>=6.0.12",
    ],
}


KERNELS = [
    Extension(
        f"amago_ray.nets.native._{name}",
        [f"amago_ray/nets/native/{name}.c"],
        depends=["amago_ray/nets/native/vectors.h"],
        # Sums may be reordered, so that they vectorise; not all of -ffast-math, which would change the whole process.
        extra_compile_args=["-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"],
        extra_link_args=["-pthread"],
        # Without a C compiler the package installs all the same and runs on torch alone.
        optional=True,
    )
    for name in ("attention", "decode")
]


class BuildWithConfigs(build_py):
    """Puts the shipped configs beside the modules, where an installed package looks for them."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "amago_ray", "configs")
            target.mkdir(parents=True, exist_ok=True)
            for config in (ROOT / "configs").glob("*.yaml"):
                shutil.copy(config, target)


setup(
    name="amago_ray",
    version="0.1.0",
    description="Distributed in-context reinforcement learning with AMAGO on Ray",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["amago_ray", "amago_ray.*"]),
    package_data={"amago_ray": ["py.typed"]},
    ext_modules=KERNELS,
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["amago-ray=amago_ray.cli:main"]},
    cmdclass={"build_py": BuildWithConfigs},
    classifiers=[
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
