"""Find everything in a module that can be changed, one small change at a time.

The operators are those of mutmut and cosmic-ray that affect decisions: comparisons, ``and`` and ``or``, negated
conditions, arithmetic, numbers, strings without spaces, ``True`` and ``False``, returned and yielded values, omitted
calls, assignments and keyword arguments, ``min``/``max`` and ``any``/``all``, ``break``/``continue``.

Not changed, because they decide nothing: text for people (a string with a space, or an f-string), docstrings,
annotations, decorators, imports, the arguments of ``cast``, ``Literal`` and ``TypeVar``, and the messages of
``assert``.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Lt: ast.LtE(),
    ast.LtE: ast.Lt(),
    ast.Gt: ast.GtE(),
    ast.GtE: ast.Gt(),
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Is: ast.IsNot(),
    ast.IsNot: ast.Is(),
    ast.In: ast.NotIn(),
    ast.NotIn: ast.In(),
}
ARITHMETIC: dict[type[ast.operator], ast.operator] = {
    ast.Add: ast.Sub(),
    ast.Sub: ast.Add(),
    ast.Mult: ast.Div(),
    ast.Div: ast.Mult(),
    ast.FloorDiv: ast.Mult(),
    ast.Mod: ast.Mult(),
    ast.Pow: ast.Mult(),
    ast.BitOr: ast.BitAnd(),
    ast.BitAnd: ast.BitOr(),
    ast.LShift: ast.RShift(),
    ast.RShift: ast.LShift(),
}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
#: Calls whose arguments only a type checker reads.
FOR_TYPES = {"cast", "TypeVar", "NewType"}


@dataclass(frozen=True, order=True)
class Mutant:
    """One small change of a module.

    Args:
        start: Where the changed text begins, in bytes of the source.
        end: Where it ends.
        text: The text that replaces it.
        line: The line of the change, from 1.
        operator: The kind of change.
    """

    start: int
    end: int
    text: str
    line: int
    operator: str

    def applied(self, source: bytes) -> bytes:
        """Return the source with this change."""
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants(source: bytes) -> list[Mutant]:
    """Return all mutants of a module that are valid Python, in the order of the source.

    Args:
        source: The module's text, in UTF-8.
    """
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted({mutant for mutant in finder.mutants if _compiles(mutant.applied(source))})


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


class _Finder(ast.NodeVisitor):
    def __init__(self, source: bytes) -> None:
        self.mutants: list[Mutant] = []
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    # ------------------------------------------------------------------------------------------------ what is skipped

    def visit_Import(self, node: ast.Import) -> None:
        """Change no import."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Change no import."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Change no text for people."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Change the value, not the annotation."""
        if node.value is not None:
            self.visit(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        """Change no annotation."""

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """Change no argument of Literal."""
        if not (isinstance(node.value, ast.Name) and node.value.id == "Literal"):
            self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Change the body, not the bases and decorators."""
        self._body(node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Change defaults and the body."""
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._body(node.body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Module(self, node: ast.Module) -> None:
        """Change everything except the docstring."""
        self._body(node.body)

    def _body(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                self.visit(statement)

    # --------------------------------------------------------------------------------------------------- expressions

    def visit_Compare(self, node: ast.Compare) -> None:
        """Swap each comparison for its nearest neighbor."""
        for number, operator in enumerate(node.ops):
            ops = [*node.ops]
            ops[number] = COMPARISONS[type(operator)]
            self._replace(node, ast.Compare(node.left, ops, node.comparators), "comparison")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Swap ``and`` and ``or``."""
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._replace(node, ast.BoolOp(other, node.values), "and/or")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Omit a ``not`` or a minus."""
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            self._replace(node, node.operand, "unary")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Swap plus and minus, and so on."""
        if type(node.op) in ARITHMETIC:
            self._replace(node, ast.BinOp(node.left, ARITHMETIC[type(node.op)], node.right), "arithmetic")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Change numbers, truth values and strings without spaces."""
        match node.value:
            case bool():
                self._replace(node, ast.Constant(not node.value), "truth")
            case int() | float():
                self._replace(node, ast.Constant(node.value + 1), "number")
            case str() if " " not in node.value:
                self._replace(node, ast.Constant("XX" + node.value), "word")
            case bytes() if b" " not in node.value:
                self._replace(node, ast.Constant(b"XX" + node.value), "word")
            case _:
                pass

    def visit_Call(self, node: ast.Call) -> None:
        """Swap ``min`` and ``max``; omit keyword arguments."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in FOR_TYPES:
            for argument in node.args[1:]:
                self.visit(argument)
            return
        if name in SWAPPED:
            self._replace(node.func, ast.Name(SWAPPED[name]), "call")
        for number, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                rest = node.keywords[:number] + node.keywords[number + 1 :]
                self._replace(node, ast.Call(node.func, node.args, rest), "keyword")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Negate the condition."""
        self._condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Negate the conditions."""
        for condition in node.ifs:
            self._condition(condition)
        self.generic_visit(node)

    def visit_Yield(self, node: ast.Yield) -> None:
        """Yield None."""
        if node.value is not None:
            self._replace(node.value, ast.Constant(None), "yield")
        self.generic_visit(node)

    # ---------------------------------------------------------------------------------------------------- statements

    def visit_If(self, node: ast.If) -> None:
        """Negate the condition; skip blocks for type checkers."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._condition(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        """Negate the condition."""
        self._condition(node.test)
        self.generic_visit(node)

    def visit_match_case(self, node: ast.match_case) -> None:
        """Negate the guard; change the body, not the pattern."""
        if node.guard is not None:
            self._condition(node.guard)
            self.visit(node.guard)
        self._body(node.body)

    def visit_Assert(self, node: ast.Assert) -> None:
        """Change no assertion, because it is for the type checker."""

    def visit_Return(self, node: ast.Return) -> None:
        """Return None instead."""
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._replace(node.value, ast.Constant(None), "return")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Omit a call."""
        if isinstance(node.value, ast.Call | ast.Await):
            self._replace(node, ast.Pass(), "left out")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Omit an assignment to an attribute or an item."""
        if isinstance(node.targets[0], ast.Attribute | ast.Subscript):
            self._replace(node, ast.Pass(), "left out")
        elif isinstance(node.targets[0], ast.Name) and node.targets[0].id in {"__all__", "__slots__"}:
            return
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Assign instead of adding."""
        self._replace(node, ast.Assign([node.target], node.value, lineno=node.lineno), "assignment")
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        """Delete nothing."""
        self._replace(node, ast.Pass(), "left out")

    def visit_Raise(self, node: ast.Raise) -> None:
        """Raise nothing; change no message."""
        self._replace(node, ast.Pass(), "left out")
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        """Continue instead."""
        self._replace(node, ast.Continue(), "loop")

    def visit_Continue(self, node: ast.Continue) -> None:
        """Stop instead."""
        self._replace(node, ast.Break(), "loop")

    # ------------------------------------------------------------------------------------------------------- details

    def _condition(self, test: ast.expr) -> None:
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):  # those are changed by their own operators
            self._replace(test, ast.UnaryOp(ast.Not(), test), "condition")

    def _replace(self, node: ast.expr | ast.stmt, other: ast.AST, operator: str) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        text = ast.unparse(other)
        if isinstance(other, ast.expr) and not isinstance(other, ast.Name):
            text = f"({text})"
        lines = self._source[start:end].count(b"\n")
        if lines and isinstance(other, ast.expr):
            text = f"({text}" + "\n" * lines + ")"  # the following lines keep their numbers
        self.mutants.append(Mutant(start, end, text, node.lineno, operator))
