# The lighttpd server with one folder, run in the foreground by whoever starts the node.
class lighttpd (
  String $root,
  Integer[1, 65535] $port,
) {
  package { 'lighttpd':
    ensure          => installed,
    install_options => ['--no-install-recommends'],
  }

  file { '/etc/lighttpd/shelf.conf':
    ensure  => file,
    owner   => 'root',
    group   => 'root',
    mode    => '0644',
    content => @("END"/L),
      server.document-root = "${root}"
      server.port = ${port}
      server.username = "www-data"
      server.groupname = "www-data"
      server.upload-dirs = ( "/tmp" )
      index-file.names = ( "index.html" )
      mimetype.assign = ( ".html" => "text/html", ".txt" => "text/plain", "" => "text/plain" )
      | END
    require => Package['lighttpd'],
  }
}
