"""The mathematics of the chapters as functions: flows, strengths, tolerances, factors of the kernel; part of the core."""
