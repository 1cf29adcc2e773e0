"""From listeners' answers to scores that one can publish: import, screening, report, checklist."""
