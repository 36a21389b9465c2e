File.open("/mnt/locks/default/backup", "a") do |lock|
  lock.flock(File::LOCK_EX)
  system("./backup.sh")
end
