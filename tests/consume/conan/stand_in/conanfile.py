"""Headers that this machine has, as a package of the name and version that the command line gives, so that the recipe of the
library is tried without a network: conan create . --name eigen --version 3.4.0, with the folder in the environment."""
import os

from conan import ConanFile
from conan.tools.files import copy


class StandIn(ConanFile):
    package_type = "header-library"

    def package(self):
        for pattern in os.environ["STAND_IN_HEADERS"].split():
            copy(self, pattern, os.environ["STAND_IN_FOLDER"], os.path.join(self.package_folder, "include"))

    def package_info(self):
        self.cpp_info.set_property("cmake_file_name", os.environ["STAND_IN_PACKAGE"])
        self.cpp_info.set_property("cmake_target_name", os.environ["STAND_IN_TARGET"])
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
