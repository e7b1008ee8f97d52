"""The screen: a list that draws only the lines in sight, one node's page, a search box."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
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
from clio_exporter.top.sources import SourceError
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
        self, key: Key, look: Callable[[Key], tuple[Node | None, Sequence[Sequence[float]]]]
    ) -> None:
        super().__init__()
        self._key = key
        self._look = look

    def compose(self) -> ComposeResult:
        """Make the parts."""
        with VerticalScroll():
            yield Static(id="text", markup=False)
            for name in ("cpu", "memory", "tasks/s"):
                yield Label(name, classes="curve")
                yield Sparkline(id=f"curve-{name.partition('/')[0]}")
        yield Static("escape back  f freeze  q quit", id="help", markup=False)

    def on_mount(self) -> None:
        """Fill them."""
        self.show()

    def show(self) -> None:
        """Show the node as it is now; a frame may come before there are parts to show it in."""
        if not self.query("#text"):
            return
        node, curves = self._look(self._key)
        text = "\n".join(detail(node)) if node else "this node is no member any more"
        self.query_one("#text", Static).update(text)
        for name, values in zip(("cpu", "memory", "tasks"), curves, strict=True):
            self.query_one(f"#curve-{name}", Sparkline).data = list(values)


class TopApp(App[None]):
    """`clio-exporter top`. ``next_frame`` is called in a thread, with the frame before."""

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
        Binding("f", "freeze", show=False),
        Binding("slash", "search", show=False, priority=True),
    ]

    def __init__(
        self, next_frame: Callable[[Frame | None], Frame], interval: float, search: Search, sort: str
    ) -> None:
        super().__init__(ansi_color=True)
        self._next_frame = next_frame
        self._interval = interval
        self._search = search
        self.sort = sort
        self.frame: Frame | None = None
        self.frozen = False
        self.problem = ""
        self.mistyped = ""
        self._asking = False
        self._history: dict[Key, tuple[deque[float], deque[float], deque[float]]] = {}

    def compose(self) -> ComposeResult:
        """Make the parts."""
        yield Static("asking the nodes ...", id="summary", markup=False)
        yield Static(id="heading", markup=False)
        yield NodeList()
        yield Input(placeholder="3, 1-20, 1,3,5 or a part of a host name", id="search", select_on_focus=False)
        yield Static(_HELP, id="status", markup=False)

    def on_mount(self) -> None:
        """Begin to ask."""
        self.query_one(NodeList).focus()
        self.set_interval(self._interval, self._tick)
        self._tick()

    def _tick(self) -> None:
        if not self.frozen and not self._asking:
            self._asking = True
            self._ask()

    @work(thread=True)
    def _ask(self) -> None:
        try:
            frame = self._next_frame(self.frame)
        except SourceError as error:
            self.call_from_thread(self._failed, str(error))
        else:
            self.call_from_thread(self._arrived, frame)

    def _failed(self, problem: str) -> None:
        self._asking = False
        self.problem = problem
        self._draw()

    def _arrived(self, frame: Frame) -> None:
        self._asking = False
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
        status = f"! {trouble}" if trouble else f"FROZEN  {_HELP}" if self.frozen else _HELP
        main.query_one("#status", Static).update(status[:width])
        if isinstance(self.screen, NodeScreen):
            self.screen.show()

    def _look(self, key: Key) -> tuple[Node | None, Sequence[Sequence[float]]]:
        node = self.frame.nodes.get(key) if self.frame else None
        return node, self._history.get(key, ((), (), ()))

    def on_node_list_opened(self, event: NodeList.Opened) -> None:
        """Open a node's page."""
        self.push_screen(NodeScreen(event.node.key, self._look))

    def action_sort(self) -> None:
        """Take the next order."""
        names = list(SORTS)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]
        self._draw()

    def action_freeze(self) -> None:
        """Stop asking, or go on."""
        self.frozen = not self.frozen
        self._draw()

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
