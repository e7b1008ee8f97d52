from spack.package import *


class PyCheroot(PythonPackage):
    """An HTTP server for WSGI. Spack's own recipe ends at 8.3."""

    homepage = "https://cheroot.cherrypy.dev"
    pypi = "cheroot/cheroot-11.1.2.tar.gz"

    license("BSD-3-Clause")

    version("11.1.2", sha256="bfb70c49663f63b0440f2b54dbc6b0d1650e56dfe4e2641f59b2c6f727b44aca")

    depends_on("python@3.8:", type=("build", "run"))
    depends_on("py-setuptools@61.2:", type="build")
    depends_on("py-setuptools-scm@7:", type="build")
    depends_on("py-jaraco-functools", type=("build", "run"))
    depends_on("py-more-itertools@2.6:", type=("build", "run"))
