"""The pages a dashboard's link opens: log in, confirm an action on one node, see what came of it.

Plain HTML without scripts. A form is accepted only with the secret that its own session holds.
"""

from __future__ import annotations

import contextlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

from flask import Flask, Response, current_app, g, redirect, render_template, request, session

from control_api.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthorized
from control_api.guard import SESSION_DIGEST, Access, Guard, Identity
from control_api.remote import NodePlan
from control_api.services import Services, plan_for
from control_api.settings import ACTIONS
from control_api.ssh import SshError, destination
from control_api.tokens import Role, digest_of
from exporter.membership import Member
from exporter.runtime.errors import RuntimeClientError

PAGE_WAIT_S: Final = 90.0
"""How long the page waits for a restarted runtime; modules can take a minute while a peer is down."""

_GENERATION_S: Final = 0.5
_NEXT = re.compile(r"/nodes/[0-9]{1,9}/(?:restart|shutdown)(?:\?[A-Za-z0-9_.~%&=+-]{0,1024})?", re.ASCII)
_STYLE: Final = (Path(__file__).parent / "pages.css").read_bytes()
_LOGIN_LIFETIME: Final = timedelta(hours=8)
_TEXT = {
    "shutdown": ("Shut down", "Shutting down", "was shut down", "not shut down"),
    "restart": ("Restart", "Restarting", "was restarted", "not restarted"),
}


def add_pages(route: Callable[..., None], services: Services, guard: Guard) -> None:
    """Add the pages to an application."""
    pages = _Pages(services, guard)
    public = Access(None, page=True, preflight=False)
    operator = Access(Role.OPERATOR, page=True, preflight=False)
    acting = Access(Role.OPERATOR, page=True, action=True, preflight=False)
    route("/login", pages.log_in_form, public, "GET")
    route("/login", pages.log_in, public, "POST")
    route("/logout", pages.log_out, public, "POST")
    route("/pages.css", pages.style, Access(None, preflight=False), "GET")
    for action in ACTIONS:
        path = f"/nodes/<node_id>/{action}"
        route(path, lambda node_id, a=action: pages.confirm(node_id, a), operator, "GET")
        route(path, lambda node_id, a=action: pages.act(node_id, a), acting, "POST")
        route(
            f"{path}/<action_id>",
            lambda node_id, action_id, a=action: pages.progress(node_id, a, action_id),
            operator,
            "GET",
        )


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
    def __init__(self, services: Services, guard: Guard) -> None:
        self._services = services
        self._guard = guard
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
            identity = self._guard.identity_of(request.form.get("token", "").strip())
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
        member = self._member(node_id)
        plan = self._plan(member)
        with contextlib.suppress(RuntimeClientError):
            # Which runtime answers tells which words its command has.
            generation = self._services.reader.session(member.address, _GENERATION_S).generation
            plan = replace(plan, generation=generation)
        return render_template(
            "confirm.html",
            busy=self._services.runner.busy_with(plan),
            **self._common(member, plan, action),
        )

    def act(self, node_id: str, action: str) -> Any:
        self._check_form()
        member = self._member(node_id)
        plan = self._plan(member)
        identity: Identity = g.identity
        runner = self._services.runner
        wait = PAGE_WAIT_S if action == "restart" else 0.0
        try:
            started = runner.start(
                action, plan, identity.name, request.remote_addr or "", identity.role.name.lower(), wait
            )
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

    def _member(self, node_id: str) -> Member:
        directory = self._services.directory
        values = request.values.getlist("cluster")
        if len(values) > 1:
            raise BadRequest("cluster is given more than once")
        return directory.member(directory.cluster(values[0] if values else None), node_id)

    def _plan(self, member: Member) -> NodePlan:
        return plan_for(self._services, member)

    def _common(self, member: Member, plan: NodePlan, action: str) -> dict[str, Any]:
        label, doing, done, not_done = _TEXT[action]
        answer = self._services.reader.newest_samples([member.address])[0]
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
            "back": self._back(), "back_value": request.values.get("back", ""),
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
