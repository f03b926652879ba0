"""The mathematics of the chapters: flows, strengths, tolerances, factors of the kernel. Part of the core."""
