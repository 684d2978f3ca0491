# One machine of the shelf.
class { 'lighttpd':
  root => '/srv/shelf',
  port => 8080,
}
