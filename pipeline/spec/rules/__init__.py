"""What is wrong with a package: each module yields the findings of one kind of fault."""
