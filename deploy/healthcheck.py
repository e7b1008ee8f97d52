"""Health check of the exporter's image: does the process answer HTTP on `CLIO_HEALTH_URL`?

Passwords and certificates are not its business: 401 is an answer, and the certificate is not checked.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

url = os.environ.get("CLIO_HEALTH_URL", "http://127.0.0.1:9777/-/healthy")
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
try:
    urllib.request.urlopen(url, timeout=4, context=context).close()  # noqa: S310 - from the image's settings
except urllib.error.HTTPError as error:
    if error.code >= 500:
        sys.exit(f"{url}: {error.code}")
except OSError as error:
    sys.exit(f"{url}: {error}")
