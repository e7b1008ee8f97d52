"""The screen: a list that draws only the lines in sight, one node's page, a search box."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Region, Size
from textual.message import Message
from textual.screen import Screen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input, Label, Sparkline, Static

from clio_client.search import Search, SearchError, parse_search
from clio_exporter.top.frame import Frame, Key, Node
from clio_exporter.top.sources import Player, SourceError
from clio_exporter.top.view import SORTS, chosen, detail, heading, row, summary

_STYLES: Final = {
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "dim": Style(dim=True),
    "": Style(),
}
_CURSOR: Final = Style(reverse=True)
_HISTORY: Final = 120
_HELP: Final = "enter node  / search  s sort  f freeze  q quit"
_HELP_NODE: Final = "escape back  f freeze  q quit"
_HELP_PLAYER: Final = "space play/pause  left/right 10 s, shift 1 min  home/end  enter / s q"
_HELP_NODE_PLAYER: Final = "escape back  space play/pause  left/right 10 s, shift 1 min  home/end  q"
_END: Final = 1e12
"""Seconds further than any job goes."""


class NodeList(ScrollView, can_focus=True):
    """The nodes; of a thousand only those in sight are drawn."""

    class Opened(Message):
        """Enter was pressed on a node."""

        def __init__(self, node: Node) -> None:
            super().__init__()
            self.node = node

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "move(-1000000)", show=False),
        Binding("end,G", "move(1000000)", show=False),
        Binding("enter", "open", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.nodes: Sequence[Node] = ()
        self.cursor = 0

    def show(self, nodes: Sequence[Node]) -> None:
        """Show these nodes; the cursor stays on the node that it is on, if that is still there."""
        current = self.nodes[self.cursor].key if self.cursor < len(self.nodes) else None
        self.nodes = nodes
        keys = [node.key for node in nodes]
        self.cursor = keys.index(current) if current in keys else min(self.cursor, max(0, len(nodes) - 1))
        self.virtual_size = Size(self.size.width, len(nodes))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        index, width = y + self.scroll_offset.y, self.size.width
        if index >= len(self.nodes):
            return Strip.blank(width)
        line = [Segment(text, _STYLES[mood]) for text, mood in row(self.nodes[index], width)]
        strip = Strip(line).adjust_cell_length(width)
        return strip.apply_style(_CURSOR) if index == self.cursor else strip

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self.cursor = min(max(0, self.cursor + by), max(0, len(self.nodes) - 1))
        self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False)
        self.refresh()

    def action_page(self, by: int) -> None:
        """Move it by a screen."""
        self.action_move(by * max(1, self.size.height - 1))

    def action_open(self) -> None:
        """Say which node it is on."""
        if self.cursor < len(self.nodes):
            self.post_message(self.Opened(self.nodes[self.cursor]))


class NodeScreen(Screen[None]):
    """One node: curves, workers, devices."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,backspace", "app.pop_screen", show=False)]
    CSS = "Sparkline {height: 2} .curve {height: 1}"

    def __init__(
        self, key: Key, look: Callable[[Key], tuple[str, Node | None, Sequence[Sequence[float]]]], keys: str
    ) -> None:
        super().__init__()
        self.key = key
        self._keys = keys
        self._look = look

    def compose(self) -> ComposeResult:
        """Make the parts."""
        with VerticalScroll():
            yield Static(id="text", markup=False)
            for name in ("cpu", "memory", "tasks/s"):
                yield Label(name, classes="curve")
                yield Sparkline(id=f"curve-{name.partition('/')[0]}")
        yield Static(self._keys, id="help", markup=False)

    def on_mount(self) -> None:
        """Fill them."""
        self.show()

    def show(self) -> None:
        """Show the node as it is now; a frame may come before there are parts to show it in."""
        if not self.query("#text"):
            return
        title, node, curves = self._look(self.key)
        absent = "this node tells nothing at this time" if title else "this node is no member any more"
        lines = detail(node) if node else [absent]
        self.query_one("#text", Static).update("\n".join([title, *lines] if title else lines))
        for name, values in zip(("cpu", "memory", "tasks"), curves, strict=True):
            self.query_one(f"#curve-{name}", Sparkline).data = list(values)


class TopApp(App[None]):
    """`clio-exporter top`. `next_frame` is called in a thread, with the frame before.

    With a `player`, time goes on there, and keys choose it; `next_frame` has the frame of the moment chosen.
    """

    CSS = """
    #summary, #heading, #status {height: auto}
    #heading {text-style: reverse}
    #search {display: none; border: none; height: 1; padding: 0}
    NodeList {height: 1fr; overflow-x: hidden; scrollbar-size: 0 0}
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", show=False),
        Binding("s", "sort", show=False),
        Binding("f,space", "freeze", show=False),
        Binding("slash", "search", show=False, priority=True),
        Binding("ctrl+c", "quit", show=False, priority=True),
        # Before the list of nodes and its like, which have other uses for these.
        Binding("left", "step(-10)", show=False, priority=True),
        Binding("right", "step(10)", show=False, priority=True),
        Binding("shift+left", "step(-60)", show=False, priority=True),
        Binding("shift+right", "step(60)", show=False, priority=True),
        Binding("home", f"step({-_END})", show=False, priority=True),
        Binding("end", f"step({_END})", show=False, priority=True),
    ]

    def __init__(
        self,
        next_frame: Callable[[Frame | None], Frame],
        interval: float,
        search: Search,
        sort: str,
        player: Player | None = None,
    ) -> None:
        super().__init__(ansi_color=True)
        self._player = player
        self._next_frame = next_frame
        self._interval = interval
        self._search = search
        self.sort = sort
        self.frame: Frame | None = None
        self.frozen = False
        self.problem = ""
        self.mistyped = ""
        self._asking = False
        self._ask_again = False
        self._to_leave = False
        self._runs_in: asyncio.AbstractEventLoop | None = None
        self._history: dict[Key, Sequence[deque[float]]] = {}

    def compose(self) -> ComposeResult:
        """Make the parts."""
        yield Static("asking ...", id="summary", markup=False)
        yield Static(id="heading", markup=False)
        yield NodeList()
        yield Input(placeholder="3, 1-20, 1,3,5 or a part of a host name", id="search", select_on_focus=False)
        yield Static(self._help, id="status", markup=False)

    @property
    def _help(self) -> str:
        return _HELP_PLAYER if self._player is not None else _HELP

    def leave(self) -> None:
        """End the app in order; callable from a signal's handler, also before the app runs."""
        self._to_leave = True
        if self._runs_in is not None and not self._runs_in.is_closed():
            self._runs_in.call_soon_threadsafe(self.exit)

    def on_mount(self) -> None:
        """Begin to ask."""
        self._runs_in = asyncio.get_running_loop()
        if self._to_leave:
            self.exit()
        self.query_one(NodeList).focus()
        self.set_interval(self._interval, self._tick)
        self._look_now()

    def _tick(self) -> None:
        if self.frozen or self._asking:
            return
        if self._player is not None and self.frame is not None:
            self._player.move(self._interval)
        self._look_now()

    def _look_now(self) -> None:
        """Ask; when an answer is being waited for, then once more."""
        if self._asking:
            self._ask_again = True
            return
        self._asking = True
        screen = self.screen
        self._ask(screen.key if isinstance(screen, NodeScreen) else None)

    @work(thread=True)
    def _ask(self, opened: Key | None) -> None:
        try:
            frame = self._next_frame(self.frame)
            past = self._past(frame, opened)
        except SourceError as error:
            self.call_from_thread(self._failed, str(error))
        else:
            self.call_from_thread(self._arrived, frame, past)

    def _past(self, frame: Frame, opened: Key | None) -> Mapping[Key, Sequence[deque[float]]]:
        """The curves of the node whose page is open, until the moment of a frame."""
        if self._player is None or opened is None:
            return {}
        curves = self._player.curves(opened, frame.at, self._interval, _HISTORY)
        return {opened: [deque(curve) for curve in curves]}

    def _failed(self, problem: str) -> None:
        self._asking = False
        self.problem = problem
        self._draw()
        self._answered()

    def _answered(self) -> None:
        if self._ask_again and self.screen_stack:
            self._ask_again = False
            self._look_now()

    def _arrived(self, frame: Frame, past: Mapping[Key, Sequence[deque[float]]] | None = None) -> None:
        self._asking = False
        if self._player is not None:
            self.problem, self.frame = "", frame
            self._history = dict(past or {})
            self.frozen = self.frozen or self._player.ended
            self._draw()
            self._answered()
            return
        if self.frozen:
            return
        self.problem, self.frame = "", frame
        for key in self._history.keys() - frame.nodes.keys():
            del self._history[key]
        for key, node in frame.nodes.items():
            kept = self._history.get(key)
            if kept is None:
                kept = deque(maxlen=_HISTORY), deque(maxlen=_HISTORY), deque(maxlen=_HISTORY)
                self._history[key] = kept
            for curve, value in zip(kept, (node.cpu, node.memory, node.tasks), strict=True):
                if value is not None:
                    curve.append(value)
        self._draw()

    def on_resize(self) -> None:
        """Draw for the new width."""
        self._draw()

    def _draw(self) -> None:
        parts = "#summary", "#heading", "NodeList", "#status"
        if not self.screen_stack or not all(self.screen_stack[0].query(part) for part in parts):
            return  # the app is ending, and its parts are gone
        main = self.screen_stack[0]
        width = self.size.width
        if self.frame is not None:
            lines = "\n".join(text for text, _ in summary(self.frame, width))
            main.query_one("#summary", Static).update(lines)
            main.query_one("#heading", Static).update(heading(width, self.sort))
            main.query_one(NodeList).show(chosen(self.frame, self._search, self.sort))
        trouble = self.mistyped or self.problem
        held = "" if not self.frozen else "FROZEN  " if self._player is None else "PAUSED  "
        status = f"! {trouble}" if trouble else held + self._help
        main.query_one("#status", Static).update(status[:width])
        if isinstance(self.screen, NodeScreen):
            self.screen.show()

    def _look(self, key: Key) -> tuple[str, Node | None, Sequence[Sequence[float]]]:
        node, title = (self.frame.nodes.get(key), self.frame.title) if self.frame else (None, "")
        return title, node, self._history.get(key, ((), (), ()))

    def on_node_list_opened(self, event: NodeList.Opened) -> None:
        """Open a node's page."""
        keys = _HELP_NODE if self._player is None else _HELP_NODE_PLAYER
        self.push_screen(NodeScreen(event.node.key, self._look, keys))
        if self._player is not None:
            self._look_now()

    def action_sort(self) -> None:
        """Take the next order."""
        names = list(SORTS)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]
        self._draw()

    def action_freeze(self) -> None:
        """Stop asking, or go on; at a player's end, from its beginning."""
        if self.frozen and self._player is not None and self._player.ended:
            self._player.move(-_END)
            self._look_now()
        self.frozen = not self.frozen
        self._draw()

    def action_step(self, seconds: float) -> None:
        """Go to another moment."""
        if self._player is not None:
            self._player.move(seconds)
            self._look_now()

    def check_action(self, action: str, _parameters: tuple[object, ...]) -> bool | None:
        """Steps in time are there with a player, and while nobody types."""
        if action == "step":
            return self._player is not None and not isinstance(self.focused, Input)
        return True

    def action_search(self) -> None:
        """Open the search box."""
        if isinstance(self.screen, NodeScreen):
            self.pop_screen()
        main = self.screen_stack[0]
        box = main.query_one("#search", Input)
        box.display = True
        main.set_focus(box)  # at once: over SSH "/" and what follows may come together

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what the box means by now; what is no search yet changes nothing."""
        try:
            self._search = parse_search(event.value)
        except SearchError as error:
            self.mistyped = str(error)
        else:
            self.mistyped = ""
        self._draw()

    def on_input_submitted(self) -> None:
        """Back to the nodes; the search stays."""
        box = self.query_one("#search", Input)
        box.display = bool(box.value)
        self.query_one(NodeList).focus()

    def on_key(self, event: object) -> None:
        """Escape leaves the search box and takes the search back."""
        if getattr(event, "key", "") == "escape" and isinstance(self.focused, Input):
            self.focused.value = ""
            self.focused.display = False
            self.query_one(NodeList).focus()
