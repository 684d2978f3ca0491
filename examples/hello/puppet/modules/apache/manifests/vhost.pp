# One virtual host that answers every host name on port 80.
#
# @param docroot   folder of the static files; pages ending in .html may contain server-side includes
# @param cgi_root  folder of the CGI programs
# @param scripts   names of CGI programs, each answering at the path of its own name
# @param aliases   paths that are served from a file outside docroot: path => file
define apache::vhost (
  Pattern[/\A\//]                           $docroot,
  Pattern[/\A\//]                           $cgi_root,
  Array[String[1]]                          $scripts = [],
  Hash[Pattern[/\A\//], Pattern[/\A\//]]    $aliases = {},
) {
  file { "/etc/apache2/sites-available/${name}.conf":
    ensure  => file,
    content => epp('apache/vhost.conf.epp', {
      'docroot'  => $docroot,
      'cgi_root' => $cgi_root,
      'scripts'  => $scripts,
      'aliases'  => $aliases,
    }),
    require => Package['apache2'],
  }

  file { "/etc/apache2/sites-enabled/${name}.conf":
    ensure => link,
    target => "../sites-available/${name}.conf",
  }
}
