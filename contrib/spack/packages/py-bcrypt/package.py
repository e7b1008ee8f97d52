from spack.package import *


class PyBcrypt(PythonPackage):
    """Password hashing. Spack's own recipe ends at 3.2."""

    homepage = "https://github.com/pyca/bcrypt"
    pypi = "bcrypt/bcrypt-5.0.0.tar.gz"

    license("Apache-2.0")

    version("5.0.0", sha256="f748f7c2d6fd375cc93d3fba7ef4a9e3a092421b8dbf34d8d4dc06be9492dfdd")

    depends_on("c", type="build")
    depends_on("rust@1.74:", type="build")
    depends_on("python@3.8:", type=("build", "run"))
    depends_on("py-setuptools@42:", type="build")
    depends_on("py-setuptools-rust@1.7:", type="build")
