# The second project of the tests: another server, another port, another path of the check, another Puppet module.

project "shelf" {}

image "books" {
  base {
    suite = "host"
  }

  packer {
    template = "packer/shelf.json"
  }

  application {
    source      = "app"
    destination = "/srv/shelf"
  }
}

service "books" {
  image   = "books"
  host    = "books.test"
  nodes   = 2
  port    = 8080
  command = ["/usr/sbin/lighttpd", "-D", "-f", "/etc/lighttpd/shelf.conf"]

  health {
    path     = "/ready"
    interval = "100ms"
    timeout  = "1s"
    passes   = 3
    failures = 3
  }

  writable = ["/run", "/tmp"]

  resources {
    memory = "128MiB"
    cpus   = "0.5"
  }

  rollout {
    floor    = 2
    drain    = "10s"
    progress = "30s"
    bake     = "0s"
  }
}
