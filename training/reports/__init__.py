"""Reports, figures and studies."""
