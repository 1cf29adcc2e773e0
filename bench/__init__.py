"""The harness: trials, systems and judges, and the stages convert → score → report between them."""
