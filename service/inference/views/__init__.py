"""Further looks at a picture: how far its answer is to be trusted, and classes averaged over them."""
