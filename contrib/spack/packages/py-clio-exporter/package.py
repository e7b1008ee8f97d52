from pathlib import Path

from spack.package import *


class PyClioExporter(PythonPackage):
    """Prometheus exporter, terminal view and job reports for clusters that run IOWarp's CLIO runtime."""

    homepage = "https://iowarp.ai"
    # The checkout that this recipe is in.
    git = Path(__file__).resolve().parents[4].as_uri()

    license("BSD-3-Clause")

    version("main", branch="main")

    variant("backfill", default=True, description="gaps of a Prometheus filled from what nodes remember")
    variant("parquet", default=False, description="recordings written as Parquet")
    variant("report", default=True, description="plots in reports of jobs")
    variant("top", default=True, description="the live view in a terminal")
    variant("prometheus", default=True, description="the Prometheus that `clio-exporter job` needs")

    depends_on("python@3.10:", type=("build", "run"))
    depends_on("py-setuptools", type="build")

    depends_on("py-bcrypt@4:", type=("build", "run"))
    depends_on("py-cheroot@10:11", type=("build", "run"))
    depends_on("py-cryptography@42:", type=("build", "run"))
    depends_on("py-flask@3.1:", type=("build", "run"))
    depends_on("py-msgpack@1.0.5:", type=("build", "run"))
    depends_on("py-paramiko@3.4:", type=("build", "run"))
    depends_on("py-prometheus-client@0.20:", type=("build", "run"))
    depends_on("py-psutil@6:", type=("build", "run"))
    depends_on("py-pyyaml@6:", type=("build", "run"))
    depends_on("py-pyzmq@25.1:", type=("build", "run"))
    depends_on("py-shtab@1.13:", type=("build", "run"))
    depends_on("py-structlog@23.2:", type=("build", "run"))
    depends_on("py-cramjam@2.9:", when="+backfill", type="run")
    depends_on("py-matplotlib@3.8:", when="+report", type="run")
    depends_on("py-pyarrow@16:", when="+parquet", type="run")
    depends_on("arrow+parquet+snappy", when="+parquet", type="run")
    depends_on("py-textual@6:", when="+top", type="run")
    depends_on("prometheus", when="+prometheus", type="run")
