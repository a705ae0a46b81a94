"""What LeetCode's programs find without importing it."""

LEETCODE = """
import bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import ceil, comb, cos, dist, e, exp, fabs, factorial, floor, gcd, hypot, inf, isqrt
from math import lcm, log, log2, log10, perm, pi, prod, sin, sqrt, tan
from operator import add, iadd, itemgetter, mul, or_, xor
from typing import *


class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next


class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val = val
        self.left = left
        self.right = right


class Node:
    def __init__(self, val=0, neighbors=None):
        self.val = val
        self.neighbors = neighbors if neighbors is not None else []
"""
