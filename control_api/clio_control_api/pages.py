"""The pages a dashboard's link opens: log in, confirm an action on one node, see what came of it.

Plain HTML without scripts. A form is accepted only with the secret that its own session holds.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

from flask import Flask, Response, current_app, g, redirect, render_template, request, session

from clio_client.membership import Member
from clio_client.questions import NodeStatus
from clio_control_api.access import SESSION_DIGEST, AccessControl, Identity
from clio_control_api.admission import identify
from clio_control_api.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthorized
from clio_control_api.node_script import NodePlan
from clio_control_api.services import Services, plan_for
from clio_control_api.ssh import SshError, destination
from clio_control_api.tokens import digest_of

PAGE_WAIT_S: Final = 90.0
"""How long the page waits for a restarted runtime; modules can take a minute while a peer is down."""

_LOOK_S: Final = 0.5
_NEXT = re.compile(r"/nodes/[0-9]{1,9}/(?:restart|shutdown)(?:\?[A-Za-z0-9_.~%&=+-]{0,1024})?", re.ASCII)
_STYLE: Final = (Path(__file__).parent / "pages.css").read_bytes()
_LOGIN_LIFETIME: Final = timedelta(hours=8)
_TEXT = {
    "shutdown": ("Shut down", "Shutting down", "was shut down", "not shut down"),
    "restart": ("Restart", "Restarting", "was restarted", "not restarted"),
}


def page_views(services: Services, access_control: AccessControl) -> object:
    """The views of the pages, as methods of the names that the table of routes has."""
    return _Pages(services, access_control)


def configure_sessions(app: Flask, secure: bool) -> None:
    """The log-in cookie: for this site only, not for scripts, over TLS only where there is TLS."""
    app.config.update(
        SESSION_COOKIE_NAME="clio_control_session",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SECURE=secure,
        PERMANENT_SESSION_LIFETIME=_LOGIN_LIFETIME,
        SESSION_REFRESH_EACH_REQUEST=False,
    )


class _Pages:
    def __init__(self, services: Services, access_control: AccessControl) -> None:
        self._services = services
        self._access_control = access_control
        self._settings = services.settings

    def style(self) -> Response:
        answer = Response(_STYLE, content_type="text/css; charset=utf-8")
        answer.headers["Cache-Control"] = "max-age=3600"
        return answer

    def log_in_form(self) -> str:
        return self._log_in_page("")

    def log_in(self) -> Any:
        self._check_form()
        try:
            identity = self._access_control.identity_of(request.form.get("token", "").strip())
        except Unauthorized as error:
            return self._log_in_page(f"{error}."), 401
        digest = digest_of(request.form["token"].strip())
        session.clear()
        session.permanent = True
        session[SESSION_DIGEST] = digest
        g.identity = identity
        return redirect(_safe_next(request.form.get("next")) or "/login", 303)

    def log_out(self) -> Any:
        self._check_form()
        session.clear()
        return redirect("/login", 303)

    def confirm(self, node_id: str, action: str) -> str:
        member = self._member(node_id, for_action=True)
        plan = self._plan(member)
        runtime = identify(self._services.queries, member, self._hostname(), _LOOK_S)
        if isinstance(runtime, NodeStatus):
            # Which runtime answers tells which words its command has.
            plan = replace(plan, generation=runtime.session.generation)
        return render_template(
            "confirm.html",
            busy=self._services.runner.busy_with(plan),
            **self._common(member, plan, action),
        )

    def act(self, node_id: str, action: str) -> Any:
        self._check_form()
        member = self._member(node_id, for_action=True)
        plan = self._plan(member)
        before = identify(self._services.queries, member, self._hostname())
        identity: Identity = g.identity
        runner = self._services.runner
        try:
            started = runner.start(
                action, plan, before, actor=identity.name, role=identity.role.name.lower(),
                client=request.remote_addr or "", wait=PAGE_WAIT_S if action == "restart" else 0.0,
            )  # fmt: skip
        except Conflict:
            busy = runner.busy_with(plan)
            page = render_template(
                "confirm.html", busy=busy, conflict=True, **self._common(member, plan, action)
            )
            return page, 409
        return redirect(self._url(member, action, started.id), 303)

    def progress(self, node_id: str, action: str, action_id: str) -> str:
        member = self._member(node_id)
        found = self._services.runner.find(action_id)
        if found is None or found.action != action or found.plan.member != member:
            raise NotFound("this action is not known; the audit log has all of them")
        return render_template(
            "progress.html", run=found, again=self._url(member, action),
            **self._common(member, found.plan, action),
        )  # fmt: skip

    # --- parts ------------------------------------------------------------------------------------

    def _member(self, node_id: str, *, for_action: bool = False) -> Member:
        clusters = self._services.clusters
        find = clusters.current_member if for_action else clusters.member
        return find(clusters.cluster(_once("cluster")), node_id)

    def _hostname(self) -> str | None:
        """What the user saw the node called, as the dashboards' links say."""
        return _once("hostname") or None

    def _plan(self, member: Member) -> NodePlan:
        return plan_for(self._services, member)

    def _common(self, member: Member, plan: NodePlan, action: str) -> dict[str, Any]:
        label, doing, done, not_done = _TEXT[action]
        answer = self._services.queries.newest_samples([member.address])[0]
        try:
            where = destination(plan.host, plan.ssh)
            ssh = f"{where.user}@{where.host}" + (f", port {where.port}" if where.port != 22 else "")
        except SshError as error:
            ssh = str(error)
        return {
            "action": action, "label": label, "doing": doing, "done": done, "not_done": not_done,
            "member": member, "ssh": ssh, "command": plan.describe(action),
            "alive": answer.ok, "problem": "" if answer.error is None else str(answer.error),
            "leader": bool((answer.document or {}).get("is_leader", False)),
            "csrf": csrf_token(), "identity": g.identity, "tokens": self._services.tokens.configured,
            "back": self._back(), "back_value": request.values.get("back", ""), "hostname": self._hostname(),
        }  # fmt: skip

    def _back(self) -> str | None:
        """Where the operator came from, if that is the dashboard's site; else the dashboard."""
        home = self._settings.dashboard_url
        wanted = request.values.get("back", "")
        if home is None or not wanted:
            return home
        try:
            found = urljoin(home, wanted)
            same = urlsplit(found)[:2] == urlsplit(home)[:2]
        except ValueError:
            return home
        return found if same and len(found) < 2048 and found.isprintable() else home

    def _url(self, member: Member, action: str, action_id: str | None = None) -> str:
        query = {}
        if member.cluster:
            query["cluster"] = member.cluster
        hostname = self._hostname()
        if hostname is not None:
            query["hostname"] = hostname[:256]
        if request.values.get("back"):
            query["back"] = request.values["back"][:2048]
        path = f"/nodes/{member.node_id}/{action}" + (f"/{action_id}" if action_id else "")
        return path + (f"?{urlencode(query)}" if query else "")

    def _check_form(self) -> None:
        """Only forms that a page of this session showed."""
        sent, own = request.form.get("csrf", ""), session.get("csrf", "")
        if not own or not hmac.compare_digest(sent.encode(), own.encode()):
            raise Forbidden(
                "the form is not from this session, or has expired; go back and load the page again"
            )

    def _log_in_page(self, problem: str) -> str:
        return render_template(
            "login.html", problem=problem, csrf=csrf_token(), identity=g.get("identity"),
            next=_safe_next(request.values.get("next")) or "", tokens=self._services.tokens.configured,
            back=self._settings.dashboard_url,
        )  # fmt: skip


def _once(name: str) -> str | None:
    values = request.values.getlist(name)
    if len(set(values)) > 1:
        raise BadRequest(f"{name} is given more than once")
    return values[0] if values else None


def csrf_token() -> str:
    """The secret of this session's forms."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def log_in_redirect() -> Any:
    """To the log-in page, or once more to the same page.

    A browser keeps a SameSite=Strict cookie back when a link on another site is followed. The page that
    then comes makes the request again, from our own site, and the cookie comes with it.
    """
    query = request.query_string.decode("ascii", "replace")
    target = request.path + (f"?{query}" if query else "")
    if request.headers.get("Sec-Fetch-Site", "").lower() == "cross-site" and _safe_next(target):
        return Response(render_template("again.html", target=target), content_type="text/html; charset=utf-8")
    return redirect(f"/login?{urlencode({'next': _safe_next(target) or ''})}", 302)


def error_page(status: int, message: str) -> Response:
    """An error for people."""
    back = current_app.extensions["dashboard_url"]
    identity: Identity | None = g.get("identity")
    page = render_template(
        "error.html", status=status, message=message, back=back, identity=identity,
        tokens=identity is not None and SESSION_DIGEST in session, csrf=csrf_token() if identity else "",
    )  # fmt: skip
    return Response(page, status=status, content_type="text/html; charset=utf-8")


def _safe_next(text: str | None) -> str | None:
    return text if text and _NEXT.fullmatch(text) else None
