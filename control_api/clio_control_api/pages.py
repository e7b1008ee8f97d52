"""The pages a dashboard's link opens: log in, confirm an action on one node, see what came of it.

Plain HTML without scripts. A form is accepted only with a secret of its own page (see `forms`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

from flask import Response, current_app, g, redirect, render_template, request

from clio_client.membership import Member
from clio_client.questions import NodeStatus
from clio_control_api.access import SESSION, AccessControl
from clio_control_api.admission import identify
from clio_control_api.errors import BadRequest, Conflict, NotFound, Unauthorized
from clio_control_api.exposure import Auth
from clio_control_api.forms import Forms
from clio_control_api.node_script import NodePlan
from clio_control_api.principals import Identity, require_action_on
from clio_control_api.reasons import MAX_REASON, checked_reason
from clio_control_api.services import Services, plan_for
from clio_control_api.ssh import SshError, destination

PAGE_WAIT_S: Final = 90.0
"""How long the page waits for a restarted runtime; modules can take a minute while a peer is down."""

_LOOK_S: Final = 0.5
_NEXT = re.compile(
    r"/(?:nodes/[0-9]{1,9}/(?:restart|shutdown)|operations(?:/(?:restart|shutdown|[0-9a-f]{16}))?)?"
    r"(?:\?[A-Za-z0-9_.~%&=+,-]{0,1024})?",
    re.ASCII,
)
"""Pages that a log-in may lead to."""

_STYLE: Final = (Path(__file__).parent / "pages.css").read_bytes()
_LOG_IN: Final = "log in"
_LOG_OUT: Final = "log out"
_TEXT = {
    "shutdown": ("Shut down", "Shutting down", "was shut down", "not shut down"),
    "restart": ("Restart", "Restarting", "was restarted", "not restarted"),
}


def page_views(services: Services, access_control: AccessControl) -> _Pages:
    """The views of the pages, as methods of the names that the table of routes has."""
    return _Pages(services, access_control)


class _Pages:
    def __init__(self, services: Services, access_control: AccessControl) -> None:
        self._services = services
        self._access_control = access_control
        self._forms = access_control.forms
        self._settings = services.settings

    def style(self) -> Response:
        answer = Response(_STYLE, content_type="text/css; charset=utf-8")
        answer.headers["Cache-Control"] = "max-age=3600"
        return answer

    def index(self) -> str:
        return render_template(
            "index.html", clusters=self._services.clusters.names, dashboard=self._settings.dashboard_url,
            **self.page_values(),
        )  # fmt: skip

    def log_in_form(self) -> str:
        return self._log_in_page("")

    def log_in(self) -> Any:
        if self._services.auth is Auth.NONE:
            return self._log_in_page("")
        self._forms.check_lasting(_LOG_IN)
        try:
            secret = self._access_control.log_in(request.form.get("token", "").strip())
        except Unauthorized as error:
            return self._log_in_page(f"{error}."), 401
        answer = redirect(_safe_next(request.form.get("next")) or "/login", 303)
        self._forms.set_cookie(answer, SESSION, secret)
        return answer

    def log_out(self) -> Any:
        self._forms.check_lasting(_LOG_OUT)
        self._access_control.log_out()
        answer = redirect("/login", 303)
        self._forms.delete_cookie(answer, SESSION)
        return answer

    def confirm(self, node_id: str, action: str) -> str:
        member = self._member(node_id, for_action=True)
        require_action_on(g.identity, member)
        plan = self._plan(member)
        runtime = identify(self._services.queries, member, self._hostname(), _LOOK_S)
        if isinstance(runtime, NodeStatus):
            # Which runtime answers tells which words its command has.
            plan = replace(plan, generation=runtime.session.generation)
        busy = self._services.runner.busy_with(plan)
        csrf = "" if busy else self._forms.once(self._purpose(member, action))
        return render_template("confirm.html", busy=busy, csrf=csrf, **self._common(member, plan, action))

    def act(self, node_id: str, action: str) -> Any:
        member = self._member(node_id, for_action=True)
        require_action_on(g.identity, member)
        self._forms.check_once(self._purpose(member, action))
        plan = self._plan(member)
        before = identify(self._services.queries, member, self._hostname())
        identity: Identity = g.identity
        runner = self._services.runner
        self._services.operations.check_free(member)
        try:
            started = runner.start(
                action, plan, before, actor=identity.name, role=identity.role.name.lower(),
                client=request.remote_addr or "", wait=PAGE_WAIT_S if action == "restart" else 0.0,
                reason=checked_reason(_once("reason")),
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
            "hostname": self._hostname(), "max_reason": MAX_REASON, **self.page_values(),
        }  # fmt: skip

    def page_values(self) -> dict[str, Any]:
        """What every template uses, beside `page_context`."""
        return {
            "identity": g.identity, "back": self._back(), "back_value": request.values.get("back", ""),
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

    def _purpose(self, member: Member, action: str) -> str:
        """What a confirmation is for: nothing else than what its page has shown."""
        return repr((action, member.cluster, member.node_id, self._hostname()))

    def _log_in_page(self, problem: str) -> str:
        return render_template(
            "login.html", problem=problem, csrf=self._forms.lasting(_LOG_IN), auth=self._services.auth.value,
            own_token=self._settings.tokens_file is None,
            next=_safe_next(request.values.get("next")) or "", back=self._settings.dashboard_url,
        )  # fmt: skip


def _once(name: str) -> str | None:
    values = request.values.getlist(name)
    if len(set(values)) > 1:
        raise BadRequest(f"{name} is given more than once")
    return values[0] if values else None


def page_context(forms: Forms, auth: Auth) -> dict[str, Any]:
    """What every page shows: who is logged in, with a way out; else whether that is possible."""
    if g.get("session") is None:
        return {"user": None, "can_log_in": auth is not Auth.NONE}
    return {"user": g.identity, "can_log_in": False, "log_out_secret": forms.lasting(_LOG_OUT)}


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
    page = render_template("error.html", status=status, message=message, back=back)
    return Response(page, status=status, content_type="text/html; charset=utf-8")


def _safe_next(text: str | None) -> str | None:
    return text if text and _NEXT.fullmatch(text) else None
