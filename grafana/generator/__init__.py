"""Makes the dashboards in ``grafana/dashboards``: one module a dashboard, shared parts apart.

``make dashboards`` runs it; a test keeps the committed files equal to what it makes.
"""
