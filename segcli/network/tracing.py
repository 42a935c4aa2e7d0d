"""From a network to the list of row operators that do the same: torch.fx traces it, batch norm is folded into the
convolution before it, and each node gets the operator that fits. A node that looks at the whole image, or that has no
rule, is named before any work starts.
"""

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segcli.network.operators import Join, Operator, Pointwise, Window, whole
from segcli.network.rules import (
    CONCATENATIONS,
    FUNCTIONS,
    NOTHING_FUNCTIONS,
    RELU,
    VALUE_FUNCTIONS,
    VALUE_METHODS,
    Make,
    NoRuleError,
    concatenation_rule,
    function_rule,
    module_rule,
)

SUMS: dict[Any, Callable[..., Tensor]] = {
    operator.add: torch.add, operator.iadd: torch.add, torch.add: torch.add, "add": torch.add, "add_": torch.add,
    operator.mul: torch.mul, operator.imul: torch.mul, torch.mul: torch.mul, "mul": torch.mul, "mul_": torch.mul,
}  # fmt: skip


class NotStreamableError(Exception):
    """The network has operators that cannot be fed in rows; `operators` says which and why, by their names in it."""

    def __init__(self, operators: list[str]) -> None:
        self.operators = operators
        super().__init__("; ".join(operators))


@dataclass(frozen=True)
class Step:
    """One operator: how to make it anew for an image, which earlier steps feed it (-1 is the image), and what is not
    needed after it."""

    name: str
    make: Callable[[], Operator]
    inputs: tuple[int, ...]
    frees: tuple[int, ...] = ()


def fold(network: nn.Module, method: str = "forward") -> fx.GraphModule:
    """`network.method(image)` in eval mode, as a module with each batch norm folded into the convolution before it.

    It may be moved and cast; the network is not changed, and weights that are not folded are shared with it.
    Raises NotStreamableError where its code cannot be traced.
    """
    tracer = fx.Tracer()
    tracer.traced_func_name = method
    try:
        traced = fx.GraphModule(network, tracer.trace(network))
    except Exception as error:  # fx raises what the traced code raises
        raise NotStreamableError([f"its code cannot be traced: {error}"]) from error
    traced.eval()
    modules = dict(traced.named_modules())
    uses = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d) or not norm.track_running_stats:
            continue
        (source,) = node.all_input_nodes
        conv = modules.get(str(source.target)) if source.op == "call_module" else None
        if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and len(source.users) == uses[str(source.target)] == 1:
            fused = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
            traced.set_submodule(str(source.target), fused.requires_grad_(False))
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


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
        self.number: dict[fx.Node, int] = {}
        self.problems: list[str] = []

    def steps(self) -> tuple[Step, ...]:
        output = None
        for node in self.folded.graph.nodes:
            if node.op == "placeholder":
                self.number[node] = -1
            elif node.op == "output":
                output = node.args[0]
            elif node.op != "get_attr":
                self._translate(node)
        if not isinstance(output, fx.Node):
            self.problems.append("it has more outputs than one")
        if self.problems:
            raise NotStreamableError(self.problems)
        assert isinstance(output, fx.Node)
        return _with_frees(_merge_relu(self.found, self.number[output]))

    def _translate(self, node: fx.Node) -> None:
        name = str(node.target) if node.op == "call_module" else node.name
        inputs = [argument for argument in node.all_input_nodes if argument.op != "get_attr"]
        if not all(source in self.number for source in inputs):
            return  # behind something already reported
        try:
            make = self._rule(node)
        except NoRuleError as error:
            self.problems.append(f"{name} ({error})")
            return
        if make is None:
            self.number[node] = self.number[inputs[0]]
            return
        self.number[node] = len(self.found)
        self.found.append(Step(name, make, tuple(self.number[source] for source in _branches(node, inputs))))

    def _rule(self, node: fx.Node) -> Make | None:
        """How to make the operator of a node; None where it does nothing in eval mode."""
        if node.op == "call_module":
            return module_rule(self.modules[str(node.target)], inplace=self._owns_its_input(node))
        if node.target in NOTHING_FUNCTIONS:
            return None
        if node.target in CONCATENATIONS:
            return concatenation_rule(node)
        if node.target in SUMS:
            return self._sum(node, SUMS[node.target])
        if node.target in VALUE_FUNCTIONS or (node.op == "call_method" and node.target in VALUE_METHODS):
            call = node.target if callable(node.target) else getattr(Tensor, str(node.target))
            settings = {key: value for key, value in node.kwargs.items() if key != "inplace"}
            return partial(Pointwise, lambda rows: call(rows, *node.args[1:], **settings))
        if node.target in FUNCTIONS:
            return function_rule(node)
        raise NoRuleError(f"no rule for {getattr(node.target, '__name__', node.target)}")

    def _owns_its_input(self, node: fx.Node) -> bool:
        """Whether the input is fresh memory that nobody else reads, so that it may be overwritten."""
        source = node.all_input_nodes[0]
        makes_new = source.target in SUMS or isinstance(
            self.modules.get(str(source.target)), nn.Conv2d | nn.ConvTranspose2d
        )
        return makes_new and len(source.users) == 1

    def _sum(self, node: fx.Node, call: Callable[..., Tensor]) -> Make:
        if set(node.kwargs) - {"alpha"} or len(node.args) != 2:
            raise NoRuleError("no rule for these arguments")
        if all(isinstance(argument, fx.Node) and argument.op != "get_attr" for argument in node.args):
            return partial(Join, lambda parts: call(whole(parts[0]), whole(parts[1]), **node.kwargs), 2)
        constants = [self._constant(argument) for argument in node.args]
        return partial(
            Pointwise, lambda rows: call(*(rows if part is None else part for part in constants), **node.kwargs)
        )

    def _constant(self, argument: Any) -> Any:
        """A number or a tensor that is the same for every row; None for the rows themselves."""
        if not isinstance(argument, fx.Node):
            return argument
        if argument.op != "get_attr":
            return None
        value: Any = self.folded
        for part in str(argument.target).split("."):
            value = getattr(value, part)
        if value.ndim > 1 and value.shape[-2] != 1:
            raise NoRuleError(f"a constant of shape {tuple(value.shape)} differs from row to row")
        return value


def _branches(node: fx.Node, inputs: list[fx.Node]) -> list[fx.Node]:
    """The inputs in the order of the arguments, one used twice given twice."""
    if node.target in CONCATENATIONS:
        return list(node.args[0])  # type: ignore[arg-type]
    if node.target in SUMS:
        return [argument for argument in node.args if argument in inputs]  # type: ignore[misc]
    return inputs


def _merge_relu(steps: list[Step], output: int) -> list[Step]:
    """The steps up to the output; a ReLU that only a window reads is done while its rows enter that window's block."""
    steps = steps[: output + 1]
    uses = Counter(source for step in steps for source in step.inputs)
    merged: list[Step] = []
    number = {-1: -1}  # of each step, in `merged`; of one that was merged away, its input's
    entering: set[int] = set()  # steps that were
    for n, step in enumerate(steps):
        make = step.make
        if make == RELU and uses[n] == 1 and _reads_as_window(steps, n):
            number[n] = number[step.inputs[0]]
            entering.add(n)
            continue
        if step.inputs[0] in entering:
            make = partial(make, enter=_enter_with_relu)  # type: ignore[call-arg]  # it makes a Window
        number[n] = len(merged)
        merged.append(Step(step.name, make, tuple(number[source] for source in step.inputs)))
    return merged


def _reads_as_window(steps: list[Step], source: int) -> bool:
    (reader,) = (step for step in steps if source in step.inputs)
    return isinstance(reader.make, partial) and reader.make.func is Window


def _enter_with_relu(rows: Tensor, place: Tensor) -> None:
    torch.clamp_min(rows, 0, out=place)


def _with_frees(steps: list[Step]) -> tuple[Step, ...]:
    """Each step with the values that nobody needs after it."""
    last_use = {source: n for n, step in enumerate(steps) for source in step.inputs}
    return tuple(
        Step(step.name, step.make, step.inputs, tuple(source for source, use in last_use.items() if use == n))
        for n, step in enumerate(steps)
    )
