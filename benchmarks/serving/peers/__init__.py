"""Other model servers doing the same work; each file starts one."""
