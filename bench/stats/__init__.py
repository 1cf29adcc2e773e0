"""Statistics: pooled metrics, intervals, comparisons, the gate and the history."""
