"""The pure core: it decides everything and touches nothing.

No clock, no dice, no file, no socket, no SDK: times and dice rolls are arguments, decisions are return values.
"""
