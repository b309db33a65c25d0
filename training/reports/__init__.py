"""What people read: reports, pictures, studies."""
