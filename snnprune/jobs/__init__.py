"""What the commands of the same name do, from files to files."""
