"""Gates: limits that a pruned network must keep, exactly compared, for people and for CI."""
