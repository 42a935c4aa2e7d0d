"""From a network to the list of row operators that do the same: torch.fx traces it, batch norm is folded into the
convolution before it, and each node gets the operator that fits. A node that looks at the whole image, or that has no
rule, is named before any work starts.
"""

import copy
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segcli.network.crop import Crop
from segcli.network.encoders import Pixelwise
from segcli.network.joins import Join, JoinedWindow, concatenate
from segcli.network.operators import Geometry, Pointwise, Reach, Window, whole
from segcli.network.rules import (
    CONCATENATIONS,
    FUNCTIONS,
    RELU,
    VALUE_FUNCTIONS,
    VALUE_METHODS,
    Make,
    NoRuleError,
    Rule,
    concatenated,
    concatenation_rule,
    function_rule,
    is_dropout,
    module_rule,
)
from segcli.network.ups import FirstMax

SUMS: dict[Any, Callable[..., Tensor]] = {
    operator.add: torch.add, operator.iadd: torch.add, torch.add: torch.add, "add": torch.add, "add_": torch.add,
    operator.mul: torch.mul, operator.imul: torch.mul, torch.mul: torch.mul, "mul": torch.mul, "mul_": torch.mul,
}  # fmt: skip


Net = TypeVar("Net", bound=nn.Module)


class NotStreamableError(Exception):
    """The network has operators that cannot be fed in rows; `operators` says which and why, by their names in it."""

    def __init__(self, operators: list[str]) -> None:
        self.operators = operators
        super().__init__("; ".join(operators))


@dataclass(frozen=True)
class Step:
    """One operator: how to make it anew for an image, which earlier steps feed it (-1 is the image), how far it reaches
    along columns, and which values it is the last to read.

    The `early` inputs of a join are handed to it by the steps that make them, which list it in `waits` as (step,
    branch): rows that wait for others need not lie about until it is its turn.
    """

    name: str
    make: Make
    inputs: tuple[int, ...]
    columns: Reach
    frees: tuple[int, ...] = ()
    early: tuple[int, ...] = ()
    waits: tuple[tuple[int, int], ...] = ()


def fold(network: nn.Module, method: str = "forward") -> fx.GraphModule:
    """`network.method(image)` in eval mode, as a module with each batch norm folded into the convolution before it.

    A copy: the network is left as it is. Raises NotStreamableError where its code cannot be traced.
    """
    network = sharing_weights(network).eval()
    tracer = _Tracer()
    tracer.traced_func_name = method
    try:
        traced = fx.GraphModule(network, tracer.trace(network))
    except Exception as error:  # fx raises what the traced code raises
        raise NotStreamableError([f"its code cannot be traced: {error}"]) from error
    modules = dict(traced.named_modules())
    new: dict[int, Any] = {}  # by their ids, as `deepcopy` wants it
    uses = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d) or not norm.track_running_stats:
            continue
        (source,) = node.all_input_nodes
        conv = modules.get(str(source.target)) if source.op == "call_module" else None
        if conv is not None and _takes_a_norm(conv) and len(source.users) == uses[str(source.target)] == 1:
            fused = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
            traced.set_submodule(str(source.target), fused.requires_grad_(False))
            modules[str(source.target)] = fused  # which another norm may follow
            new |= {id(weights): weights for weights in fused.parameters()}
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return copy.deepcopy(traced, new).eval()  # the rest still is the network's own


class _Tracer(fx.Tracer):
    """Does not look into what has a rule as a whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, FirstMax | Crop | Pixelwise) or super().is_leaf_module(m, module_qualified_name)


def sharing_weights(network: Net) -> Net:
    """A copy whose modules are its own and whose weights are the network's: they may be large."""
    weights = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in weights})


def _takes_a_norm(conv: nn.Module) -> bool:
    # torch folds the channels of a grouped transposed convolution in the wrong order.
    return isinstance(conv, nn.Conv2d) or (isinstance(conv, nn.ConvTranspose2d) and conv.groups == 1)


def trace(folded: fx.GraphModule) -> tuple[Step, ...]:
    """The steps of a folded network, in order; the last one gives the output. They share its weights.

    Raises NotStreamableError with every operator that has no rule.
    """
    return _Translation(folded).steps()


class _Translation:
    """One pass over a traced graph."""

    def __init__(self, folded: fx.GraphModule) -> None:
        self.folded = folded
        self.modules = dict(folded.named_modules())
        self.found: list[Step] = []
        self.number: dict[fx.Node, int] = {}  # which step's output a node stands for
        self.overwritten: dict[int, str] = {}  # outputs that an operator has changed in place, and its name
        self.problems: list[str] = []

    def steps(self) -> tuple[Step, ...]:
        output: Any = None
        for node in self.folded.graph.nodes:
            if node.op == "placeholder":
                if self.number:
                    self.problems.append(f"{node.name} (a second input)")
                self.number[node] = -1
            elif node.op == "output":
                output = node.args[0]
            elif node.op != "get_attr":
                self._translate(node)
        if not isinstance(output, fx.Node):
            self.problems.append("its output is not one tensor")
        if self.problems:
            raise NotStreamableError(self.problems)
        return _with_frees(_merge(_needed(self.found, self.number[output])))

    def _translate(self, node: fx.Node) -> None:
        name = str(node.target) if node.op == "call_module" else node.name
        inputs = [argument for argument in node.all_input_nodes if argument.op != "get_attr"]
        if not all(source in self.number for source in inputs):
            return  # behind something already reported
        try:
            if not inputs:
                raise NoRuleError("made from weights alone")
            for source in inputs:
                if self.number[source] in self.overwritten:
                    raise NoRuleError(f"reads what {self.overwritten[self.number[source]]} has overwritten")
            rule = self._rule(node)
            sources = tuple(self.number[source] for source in self._branches(node, inputs))
        except NoRuleError as error:
            self.problems.append(f"{name} ({error})")
            return
        if rule is None:
            self.number[node] = self.number[inputs[0]]
            return
        if self._is_inplace(node):
            self.overwritten[self.number[inputs[0]]] = name
        self.number[node] = len(self.found)
        self.found.append(Step(name, rule.make, sources, rule.columns))

    def _rule(self, node: fx.Node) -> Rule | None:
        """How to make the operator of a node; None where it does nothing in eval mode."""
        if node.op == "call_module":
            return module_rule(self.modules[str(node.target)], inplace=self._owns_its_input(node))
        if node.target in CONCATENATIONS:
            return concatenation_rule(node)
        if node.target in SUMS:
            return self._sum(node, SUMS[node.target])
        if node.target in VALUE_FUNCTIONS or (node.op == "call_method" and node.target in VALUE_METHODS):
            call = node.target if callable(node.target) else getattr(Tensor, str(node.target))
            settings = {key: value for key, value in node.kwargs.items() if key != "inplace"}
            if any(isinstance(value, fx.Node) for value in (*node.args[1:], *settings.values())):
                raise NoRuleError("no rule for tensors as its settings")
            rest = node.args[1:]  # not the node, which holds all weights
            return Rule(partial(Pointwise, lambda rows: call(rows, *rest, **settings)))
        if node.target in FUNCTIONS or is_dropout(node.target):
            return function_rule(node)
        raise NoRuleError(f"no rule for {getattr(node.target, '__name__', node.target)}")

    def _is_inplace(self, node: fx.Node) -> bool:
        """Whether the network itself changes the input of a node in place."""
        if node.op == "call_module":
            return bool(getattr(self.modules[str(node.target)], "inplace", False))
        if node.op == "call_method":
            return str(node.target).endswith("_")
        return node.target in (operator.iadd, operator.imul) or bool(node.kwargs.get("inplace", False))

    def _owns_its_input(self, node: fx.Node) -> bool:
        """Whether the input is fresh memory that nobody else reads, so that it may be overwritten."""
        source = node.all_input_nodes[0]
        if source.op == "call_module":
            makes_new = isinstance(self.modules[str(source.target)], nn.Conv2d | nn.ConvTranspose2d)
        else:
            makes_new = source.target in SUMS
        return makes_new and len(source.users) == 1

    def _branches(self, node: fx.Node, inputs: list[fx.Node]) -> list[fx.Node]:
        """The inputs in the order of the arguments, one used twice given twice."""
        if node.target in CONCATENATIONS:
            branches = concatenated(node)
        elif node.target in SUMS:
            branches = [argument for argument in node.args if argument in inputs]
        else:
            branches = inputs
        if not all(branch in self.number for branch in branches):
            raise NoRuleError("no rule for constants among its inputs")
        return branches

    def _sum(self, node: fx.Node, call: Callable[..., Tensor]) -> Rule:
        if set(node.kwargs) - {"alpha"} or len(node.args) != 2:
            raise NoRuleError("no rule for these arguments")
        settings = dict(node.kwargs)  # not the node, which holds all weights
        if all(isinstance(argument, fx.Node) and argument.op != "get_attr" for argument in node.args):
            return Rule(partial(Join, lambda parts: call(whole(parts[0]), whole(parts[1]), **settings), 2))
        constants = [self._constant(argument) for argument in node.args]
        return Rule(
            partial(Pointwise, lambda rows: call(*(rows if part is None else part for part in constants), **settings))
        )

    def _constant(self, argument: Any) -> Any:
        """A number or a tensor that is the same for every row and column; None for the rows themselves."""
        if not isinstance(argument, fx.Node):
            return argument
        if argument.op != "get_attr":
            return None
        value: Any = self.folded
        for part in str(argument.target).split("."):
            value = getattr(value, part)
        if any(size != 1 for size in value.shape[-2:]):
            raise NoRuleError(f"a constant of shape {tuple(value.shape)} is not the same for every row and column")
        return value


def _needed(steps: list[Step], output: int) -> list[Step]:
    """The steps that the output needs, which is that of the last one; others would keep rows that nobody reads."""
    needed, number = {output}, {-1: -1}
    for n in range(output, -1, -1):
        if n in needed:
            needed.update(steps[n].inputs)
    kept = [n for n in range(output + 1) if n in needed]
    number |= {n: place for place, n in enumerate(kept)}
    return [replace(steps[n], inputs=tuple(number[source] for source in steps[n].inputs)) for n in kept]


def _merge(steps: list[Step]) -> list[Step]:
    """The steps; what only a window reads is done while rows enter its block, where that is known how:
    ReLU, and concatenation."""
    uses = Counter(source for step in steps for source in step.inputs)
    merged: list[Step] = []
    number = {-1: -1}  # of each step, in `merged`
    left_out: dict[int, Step] = {}
    for n, step in enumerate(steps):
        if uses[n] == 1 and (step.make is RELU.make or _joins(step)) and _reads_as_window(steps, n):
            left_out[n] = step
            continue
        make, inputs = step.make, step.inputs
        if before := left_out.get(inputs[0]):
            inputs = before.inputs
            if before.make is RELU.make:
                make = partial(make, enter=_enter_with_relu)  # type: ignore[call-arg]  # it makes a Window
            else:
                make = partial(_joined_window, before.make, make)  # type: ignore[arg-type]  # they make these
        number[n] = len(merged)
        merged.append(Step(step.name, make, tuple(number[source] for source in inputs), step.columns))
    return merged


def _joins(step: Step) -> bool:
    return isinstance(step.make, partial) and step.make.func is Join and step.make.args[0] is concatenate


def _is_join(step: Step) -> bool:
    return isinstance(step.make, partial) and step.make.func in (Join, _joined_window)


def _reads_as_window(steps: list[Step], source: int) -> bool:
    (reader,) = (step for step in steps if source in step.inputs)
    if not isinstance(reader.make, partial) or reader.make.func is not Window:
        return False
    geometry: Geometry = reader.make.args[1]
    return geometry.stride <= geometry.extent  # it skips no rows


def _joined_window(join: Callable[[], Join], window: Callable[[], Window]) -> JoinedWindow:
    return JoinedWindow(join(), window())


def _enter_with_relu(rows: Tensor, place: Tensor) -> None:
    torch.clamp_min(rows, 0, out=place)


def _with_frees(steps: list[Step]) -> tuple[Step, ...]:
    """Each step with the values that it is the last to read, and with what it hands to joins."""
    early = [
        tuple(source for source in step.inputs if 0 <= source < max(step.inputs)) if _is_join(step) else ()
        for step in steps
    ]
    last_use: dict[int, int] = {}
    waits: dict[int, list[tuple[int, int]]] = {}
    for n, step in enumerate(steps):
        for branch, source in enumerate(step.inputs):
            if source in early[n]:
                waits.setdefault(source, []).append((n, branch))
                last_use.setdefault(source, source + 1)
            else:
                last_use[source] = n
    return tuple(
        replace(
            step,
            frees=tuple(source for source, use in last_use.items() if use == n),
            early=early[n],
            waits=tuple(waits.get(n, ())),
        )
        for n, step in enumerate(steps)
    )
