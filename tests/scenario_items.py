# SPDX-License-Identifier: GPL-2.0-only
"""A pytest plugin: the scenarios are tests, and the files that declare them are test files.

    pytest -n auto                                    all tests, and the detach run: before the detach and after it
    pytest --union=ov-xino-verify -n 2                the scenarios alone, on unions of this kind
    pytest --union=ov tests/union/rename_file.py      a plain overlay, one family

An id is `tests/union/rename_file.py::rename-file::onto itself[ov-xino-detached-6.12]`. Scenarios share unions (see
`scopes.py`), and where the running kernel will not do these are in a guest of each worker (see `guest_unions.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from command.expectations import Expectation, expectations
from kernel import choice
from kernel.gateway import WATCHED
from kernel.recipe import NATIVE
from tests.guest_unions import InGuest
from tests.guest_workers import kernel_of, workers_of
from tests.scenario_kernel import Kernel, choose, running
from tests.scenario_reports import Reports, directory_of, keep_facts
from tests.scenario_runs import Erred, Failed, Unions
from tests.scopes import Stage, scope_of, stages
from tests.union import FAMILIES, GROUPS, MODULES
from tests.union.choice import Choice
from tests.union_server import Here
from union.configuration import LowerFs
from union.effective import effective
from union.errors import HarnessError
from union.scenario import Group, When

DEFAULT = "ov-xino"
"""The unions that scenarios run on when nobody says which: the main job's."""

_FILES = {Path(str(module.__file__)).resolve(): module.__name__.rpartition(".")[2] for module in MODULES}
_CLAUSES = ("D8", "D9", "D10", "D13", "D19")  # of the contract, those that single scenarios show
_SHOWN = ("layers", "options in effect", "fence")  # of the evidence, what becomes a property of each scenario
_HYPOTHESIS = "hypothesispytest"
_chosen = pytest.StashKey[list[Stage]]()
_expected = pytest.StashKey[tuple[Expectation, ...]]()
_kernel = pytest.StashKey[Kernel]()
_unions = pytest.StashKey[Unions]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options."""
    group = parser.getgroup("scenarios", "the scenarios as tests")
    group.addoption("--union", action="append", default=[], metavar="WORDS", help="Run the scenarios, and nothing "
                    "else, on this kind of union: the words of ./run, like ov, ov-xino, ovov-verify. May be repeated. "
                    f"Without it they run on {DEFAULT}.")
    group.addoption("--kernel", metavar="KERNEL", help=f"For the scenarios: {', '.join(choice.names())}, or the path "
                    f"of a User-mode Linux binary or a bzImage, a guest of which each worker gets; {NATIVE} is the "
                    "running kernel.")
    group.addoption("--lower-fs", choices=get_args(LowerFs), help="Filesystem of the lower layer.")
    group.addoption("--detach", choices=("on", "off"), help="With off xino is plain xino=on.")
    group.addoption("--require", action="store_true", help="What is skipped as something is missing is an error.")
    group.addoption("--results", type=Path, metavar="DIR", help="Put JUnit XML, KTAP, result.txt (LAVA) and kcidb.json "
                    "about the scenarios there, and the state, the log and the console of each worker's kernel.")
    group.addoption("--expect", type=Path, metavar="FILE", help="Scenarios that are known to fail, as ./run has it; "
                    "one that passes all the same fails.")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Iterator[None]:
    """Find out which unions there are to be, and on which kernel."""
    if config.getoption("--union") and config.pluginmanager.has_plugin(_HYPOTHESIS):
        config.pluginmanager.unregister(name=_HYPOTHESIS)  # no scenario uses it, and it takes half a second in the end
    try:
        chosen = config.stash[_chosen] = _stages(config)
        expect = config.getoption("--expect")
        config.stash[_expected] = expectations(expect) if expect else ()
        if chosen and not hasattr(config, "workerinput") and not config.getoption("--workers-in"):
            collecting = config.getoption("collectonly")
            config.stash[_kernel] = choose(chosen, config.getoption("--kernel"), collecting=collecting)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    return (yield)


def _stages(config: pytest.Config) -> list[Stage]:
    """The unions asked for; without being asked none for tests that are no scenarios."""
    given: list[str] = config.getoption("--union")
    more = [f"--{name}={value}" for name in ("lower-fs", "detach") if (value := config.getoption(f"--{name}"))]
    if not given:
        paths = [Path(word.partition("::")[0]).resolve() for word in config.args]
        given = [DEFAULT] if any(_FILES.keys() & {path} or _holds_scenarios(path) for path in paths) else []
    return [stage for union in given for stage in stages(union, more)]


def _holds_scenarios(directory: Path) -> bool:
    return any(directory in file.parents for file in _FILES)


def pytest_configure(config: pytest.Config) -> None:
    """Register what scenarios are marked with."""
    for family in dict.fromkeys(FAMILIES.values()):
        config.addinivalue_line("markers", f"{family}: scenarios of this family")
    for clause in _CLAUSES:
        config.addinivalue_line("markers", f"{clause}: scenarios that show this clause of the contract")
    unions = Unions(lambda: _start(config), config.getoption("--require"))
    config.stash[_unions] = unions
    config.add_cleanup(unions.close)
    directory = config.getoption("--results")
    if directory and not hasattr(config, "workerinput") and config.stash.get(_chosen, []):
        try:
            named = {stage.name: stage for stage in config.stash[_chosen]}
            kernel = scenario_kernel(config)
            config.pluginmanager.register(Reports(directory.absolute(), named, kernel.word, kernel.label))
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from error


def scenario_kernel(config: pytest.Config) -> Kernel:
    """The kernel of the scenarios."""
    if WATCHED in os.environ:
        return running(*kernel_of(config))
    told = getattr(config, "workerinput", {}).get("scenario kernel")
    return Kernel(*told) if told else config.stash.get(_kernel, running())


def _start(config: pytest.Config) -> Here | InGuest:
    """The place of the unions of this worker."""
    kernel = scenario_kernel(config)
    if not kernel.program:
        return Here()
    return InGuest(Path(kernel.program), config.getoption("--test-limit"), directory_of(config))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have the guest boot while tests are collected."""
    config = session.config
    leads = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if config.stash[_chosen] and not (leads or config.getoption("collectonly")):
        config.stash[_unions].begin()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep what the kernel has to say."""
    directory = directory_of(session.config)
    if directory and (found := session.config.stash[_unions].facts()):
        keep_facts(directory, *found)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell the worker which kernel was chosen."""
    if _kernel in node.config.stash:
        node.workerinput["scenario kernel"] = tuple(node.config.stash[_kernel])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker whole scopes."""
    if not config.stash.get(_chosen, []):
        return None
    from tests.scope_scheduling import ScopeScheduling

    return ScopeScheduling(config, log, lambda nodeid: scope_of(nodeid, workers_of(config)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--union` no other tests are run."""
    if not config.getoption("--union"):
        return None
    # Not its directory either: the conftest.py of another one may load much.
    ours = _family(collection_path) or (not collection_path.suffix and _holds_scenarios(collection_path.resolve()))
    return None if ours else True


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The scenarios of a file."""
    if parent.config.stash.get(_chosen, []) and (family := _family(file_path)):
        return ScenarioFile.from_parent(parent, path=file_path, family=family)
    return None


@cache
def _family(path: Path) -> str:
    """The family that the file declares, empty for any other file."""
    # Resolving takes a system call for each part of the path, of which a guest does a few thousand in a second.
    return _FILES.get(path.resolve(), "") if path.stem in _FILES.values() else ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What shares a union is run in one go."""
    if config.stash.get(_chosen, []):
        order: dict[str, int] = {}
        for item in items:
            order.setdefault(_scope(item), len(order))
        items.sort(key=lambda item: order[_scope(item)])


def _scope(item: pytest.Item | None) -> str:
    return item.scope if isinstance(item, ScenarioItem) else ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell which scenarios share a union, now that all are chosen."""
    for item in session.items:
        if isinstance(item, ScenarioItem):
            session.config.stash[_unions].add(item.scope, item.stage, item.group, item.number)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last scenario on a union, look at it as a whole."""
    if isinstance(item, ScenarioItem) and item.scope != _scope(nextitem):
        item.config.stash[_unions].finish(item.scope)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep apart what pytest has one word for: a failure is the kernel's, an error is ours."""
    report: Any = yield
    if isinstance(item, ScenarioItem) and call.excinfo is not None:
        if isinstance(call.excinfo.value, (Failed, Erred)):
            report.longrepr = item.said(call.excinfo.value)
        if isinstance(call.excinfo.value, Erred) and report.when == "call":
            report.when = "setup"
        elif report.skipped:
            path, line, _ = item.reportinfo()
            report.longrepr = (str(path), line + 1, f"Skipped: {call.excinfo.value}")
    return report  # type: ignore[no-any-return]


class ScenarioFile(pytest.File):
    """A family."""

    def __init__(self, *, family: str, **more: Any) -> None:
        super().__init__(**more)
        self.family = family

    def collect(self) -> Iterable[pytest.Collector]:
        """Its groups that run on any of the unions."""
        for group in GROUPS:
            if FAMILIES[group.name] == self.family:
                yield ScenarioGroup.from_parent(self, name=group.name, group=group)


class ScenarioGroup(pytest.Collector):
    """A group."""

    def __init__(self, *, group: Group, **more: Any) -> None:
        super().__init__(**more)
        self.group = group

    def collect(self) -> Iterable[pytest.Item]:
        """Its scenarios, on each of the unions."""
        kernel = scenario_kernel(self.config)
        for stage in self.config.stash[_chosen]:
            for number in _numbers(stage).get(self.group.name, ()) or self._long(stage):
                name = f"{self.group.labels[number - 1]}[{stage.name}-{kernel.label}]"
                yield ScenarioItem.from_parent(self, name=name, stage=stage, group=self.group, number=number)


    def _long(self, stage: Stage) -> Iterable[int]:
        """Those that take too long for every run, if it is their file that is to run."""
        files = [Path(argument.partition("::")[0]).absolute() for argument in self.config.args]
        asked = self.group.when is When.LONG and self.path in files
        fits = stage.last and not stage.configuration.layers_are_chosen
        return range(1, len(self.group.labels) + 1) if asked and fits else ()


@cache
def _numbers(stage: Stage) -> dict[str, tuple[int, ...]]:
    """Per group the scenarios that are part of a run of the stage, trials once per run."""
    redirects = effective(stage.configuration).redirects
    chosen = Choice().selection(stage.configuration, redirects=redirects, tell=lambda event: None, among=stage.among)
    return {group.name: numbers for group, numbers in chosen if stage.last or not group.trials}


class ScenarioItem(pytest.Item):
    """A scenario on a kind of union."""

    def __init__(self, *, stage: Stage, group: Group, number: int, **more: Any) -> None:
        super().__init__(**more)
        self.stage, self.group, self.number = stage, group, number
        self.scope = scope_of(self.nodeid, workers_of(self.config))
        clauses = ["D10"]
        clauses += ["D13"] if len(group.lowers) > 1 else []
        clauses += ["D8", "D9"] if stage.configuration.detached else ["D19"] if stage.configuration.detach else []
        for mark in (FAMILIES[group.name], *clauses):
            self.add_marker(mark)
        kernel = scenario_kernel(self.config)
        self.command = stage.command(kernel.word)
        for known in self.config.stash[_expected]:
            if (known.group, known.number) == (group.name, number) and known.applies(self.command, kernel.release):
                self.add_marker(pytest.mark.xfail(raises=Failed, strict=True, reason=known.reason))
        self.user_properties += [("kernel", kernel.release), ("union", stage.name)]
        self.user_properties += [("scenario", f"{group.name}:{number}"), ("command", self.reproducer)]

    @property
    def reproducer(self) -> str:
        """The command line that repeats it."""
        return f"{self.command} {self.group.name}:{self.number}"

    def setup(self) -> None:
        """See to the union. What is wrong with it is an error of each scenario on it."""
        if not self.group.trials:
            unions = self.config.stash[_unions]
            unions.prepare(self.scope)
            evidence = unions.evidence(self.scope)
            self.user_properties += [(name, evidence[name]) for name in _SHOWN if name in evidence]

    def runtest(self) -> None:
        """Run it."""
        self.config.stash[_unions].run(self.scope, self.group, self.number)

    def said(self, error: Failed | Erred) -> str:
        """The complaints and the line that repeats it, in the place of a traceback through ourselves."""
        return "\n".join([*map(str, error.args), f"reproduce: {self.reproducer}"])

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it is declared; pytest counts lines from 0."""
        declared = (self.group.trials or self.group.scenarios)[self.number - 1]
        line = int(re.sub(r".*:", "", declared.origin))
        return self.path, line - 1, self.name
