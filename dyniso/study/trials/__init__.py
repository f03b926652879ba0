"""Small experiments that chapters run while they are made: they train for seconds and store nothing."""
