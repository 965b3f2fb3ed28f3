"""The library as a Conan package, from this checkout: conan create tests/consume/conan"""
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain
from conan.tools.files import copy, load


class Rwkv(ConanFile):
    name = "rwkv"
    description = "RWKV building blocks as C++ templates"
    license = "MIT"
    package_type = "header-library"
    settings = "os", "compiler", "build_type", "arch"
    no_copy_source = True

    def _checkout(self):
        return os.path.join(self.recipe_folder, "..", "..", "..")

    def set_version(self):
        config = load(self, os.path.join(self._checkout(), "include", "rwkv", "config.hpp"))
        self.version = ".".join(re.findall(r"#define RWKV_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", config))

    def export_sources(self):
        for pattern in ("include/*", "CMakeLists.txt", "LICENSE"):
            copy(self, pattern, self._checkout(), self.export_sources_folder)

    def requirements(self):
        self.requires("eigen/[>=3.4 <6]", transitive_headers=True)
        self.requires("nlohmann_json/[>=3.11 <4]", transitive_headers=True)

    def package_id(self):
        self.info.clear()  # headers, and two source files that are compiled in the user's project

    def validate(self):
        check_min_cppstd(self, 20)

    def generate(self):
        CMakeDeps(self).generate()
        CMakeToolchain(self).generate()

    def build(self):
        options = ("TESTS", "EXAMPLES", "BENCHMARKS")
        CMake(self).configure(variables={f"RWKV_BUILD_{name}": "OFF" for name in options})

    def package(self):
        CMake(self).install()

    def package_info(self):
        # The library's own package files say which targets there are.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("lib", "cmake", "rwkv")]
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
