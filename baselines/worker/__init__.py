"""Systems in an environment of another interpreter: client, server, installation."""
