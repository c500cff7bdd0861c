"""Bills of materials: what an image is made of and under which licences, in two formats."""
