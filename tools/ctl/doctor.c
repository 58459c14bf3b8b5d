/* sana-ctl doctor: every reason why frames may not flow, and what to type against each. */
#include "tools/ctl/ctl.h"

#include "base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum verdict { FINE, NOTICE, PROBLEM };

struct report {
	json_t *list;
	int problems;
};

static void say(struct report *report, enum verdict verdict, const char *check, const char *fix,
		const char *format, ...) _printf_(5, 6);

static void say(struct report *report, enum verdict verdict, const char *check, const char *fix,
		const char *format, ...)
{
	static const char *const names[] = {
		[FINE] = "ok", [NOTICE] = "note", [PROBLEM] = "problem"
	};
	char text[512];
	va_list list;

	va_start(list, format);
	(void)vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	report->problems += verdict == PROBLEM;
	(void)json_array_append_new(report->list,
				    json_pack("{s:s, s:s, s:s, s:s}", "check", check, "verdict",
					      names[verdict], "text", text, "fix", fix));
}

/* The first line of a small file; "" when there is none. */
static const char *line_of(const char *path, char *ret, size_t bytes)
{
	FILE *file = fopen(path, "re");

	ret[0] = '\0';
	if (file && fgets(ret, (int)bytes, file))
		ret[strcspn(ret, "\n")] = '\0';
	fclosep(&file);
	return ret;
}

/* -------------------------------------------------------------------------------------- modules */

static bool module_is_installed(const char *name)
{
	char path[256], line[1024], wanted[64];
	struct utsname kernel;
	bool found = false;
	FILE *file;

	if (uname(&kernel) < 0)
		return false;
	(void)snprintf(path, sizeof(path), "/lib/modules/%s/modules.dep", kernel.release);
	(void)snprintf(wanted, sizeof(wanted), "/%s.ko", name);
	file = fopen(path, "re");
	while (file && !found && fgets(line, sizeof(line), file))
		found = strstr(line, wanted) != NULL;
	fclosep(&file);
	return found;
}

static bool secure_boot(void)
{
	static const char path[] =
		"/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
	unsigned char bytes[5] = { 0 };
	const int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (read(fd, bytes, sizeof(bytes)) != (ssize_t)sizeof(bytes))
		bytes[4] = 0;
	(void)close(fd);
	return bytes[4] == 1;
}

static void loopback_check(struct report *report)
{
	static const char check[] = "virtual camera module";
	char caps[128];

	if (access("/sys/module/v4l2loopback", F_OK) == 0) {
		(void)line_of("/sys/module/v4l2loopback/parameters/exclusive_caps", caps,
			      sizeof(caps));
		if (caps[0] == 'Y' || caps[0] == '1')
			say(report, FINE, check, "",
			    "v4l2loopback is loaded, exclusive_caps is on.");
		else
			say(report, PROBLEM, check,
			    "sudo modprobe -r v4l2loopback && sudo modprobe v4l2loopback "
			    "exclusive_caps=1 card_label=sana",
			    "v4l2loopback is loaded without exclusive_caps=1: browsers do not see "
			    "the camera.");
	} else if (!module_is_installed("v4l2loopback")) {
		say(report, PROBLEM, check,
		    "sudo apt install v4l2loopback-dkms linux-headers-$(uname -r)",
		    "The module v4l2loopback is not installed for this kernel.");
	} else {
		say(report, PROBLEM, check,
		    secure_boot() ? "sudo mokutil --import /var/lib/dkms/mok.pub, start again and "
				    "enroll the key, then sudo modprobe v4l2loopback" :
				    "sudo modprobe v4l2loopback exclusive_caps=1 card_label=sana",
		    "The module v4l2loopback is installed and not loaded%s.",
		    secure_boot() ? "; Secure Boot is on and wants it signed" : "");
	}
}

/* ---------------------------------------------------------------------------------------- nodes */

static int entries_count(const char *directory, const char *prefix)
{
	DIR *dir = opendir(directory);
	const struct dirent *entry;
	int count = 0;

	while (dir && (entry = readdir(dir)))
		count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
	if (dir)
		(void)closedir(dir);
	return count;
}

static void nodes_check(struct report *report)
{
	const int videos = entries_count("/sys/class/video4linux", "video");
	const int cards = entries_count("/dev/dri", "card");

	if (videos)
		say(report, FINE, "video nodes", "", "%d video nodes are there.", videos);
	else
		say(report, PROBLEM, "video nodes", "ls /dev/video*; plug a camera in",
		    "There is no video node: no camera, no virtual camera.");
	if (cards)
		say(report, FINE, "displays", "", "%d display cards are there.", cards);
	else
		say(report, NOTICE, "displays", "", "There is no display card: no kms: sink.");
}

/* --------------------------------------------------------------------------------------- groups */

static bool is_member(const struct passwd *user, const char *group)
{
	enum { GROUPS = 256 };
	const struct group *found = getgrnam(group);
	gid_t list[GROUPS];
	int count = GROUPS;

	if (!found || getgrouplist(user->pw_name, user->pw_gid, list, &count) < 0)
		return false;
	for (int i = 0; i < count; i++)
		if (list[i] == found->gr_gid)
			return true;
	return false;
}

static void user_check(struct report *report)
{
	static const char *const groups[] = { "video", "render" };
	const struct passwd *user = getpwnam("sana-streamd");
	char fix[128];

	if (!user) {
		say(report, PROBLEM, "service user", "sudo systemd-sysusers",
		    "The user sana-streamd is not there.");
		return;
	}
	say(report, FINE, "service user", "", "The user sana-streamd is there.");
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		(void)snprintf(fix, sizeof(fix), "sudo usermod -aG %s sana-streamd", groups[i]);
		/* The unit gives them as supplementary groups, too. */
		if (getgrnam(groups[i]) && !is_member(user, groups[i]))
			say(report, NOTICE, "groups", fix,
			    "sana-streamd is no member of %s; the unit gives it that group.",
			    groups[i]);
	}
	user = getpwuid(getuid());
	if (user && getuid() != 0 && !is_member(user, "sana-streamd")) {
		(void)snprintf(fix, sizeof(fix), "sudo usermod -aG sana-streamd %.64s",
			       user->pw_name);
		say(report, NOTICE, "groups", fix,
		    "You are no member of sana-streamd: polkit will ask for a password.");
	}
}

/* ------------------------------------------------------------------------------------------ GPU */

static void gpu_check(struct report *report)
{
	static const char check[] = "GPU";
	const int least = 580;
	char line[256];
	const char *number;
	int branch = 0;

	(void)line_of("/proc/driver/nvidia/version", line, sizeof(line));
	number = strstr(line, "Module");
	if (number)
		(void)sscanf(number, "Module %*[^0-9]%d", &branch);
	if (number && !branch)
		(void)sscanf(number, "Module %d", &branch);
	if (!line[0])
		say(report, NOTICE, check, "sudo apt install nvidia-driver",
		    "There is no NVIDIA driver: the CPU computes, at a fraction of the speed.");
	else if (branch && branch < least)
		say(report, PROBLEM, check, "install the NVIDIA driver 580 or newer",
		    "The NVIDIA driver %d is older than %d.", branch, least);
	else if (access("/dev/nvidia0", F_OK) != 0)
		say(report, PROBLEM, check,
		    "sudo nvidia-modprobe -c 0 && sudo nvidia-modprobe -c 0 -u",
		    "The NVIDIA driver is loaded and /dev/nvidia0 is not there.");
	else
		say(report, FINE, check, "", "%s", line);
}

/* ---------------------------------------------------------------------------------------- model */

static int run(char *const arguments[], char *ret, size_t bytes)
{
	int pipe_fd[2], status = 0;
	ssize_t got = 0;
	pid_t child;

	ret[0] = '\0';
	if (pipe(pipe_fd) < 0)
		return -1;
	child = fork();
	if (child == 0) {
		(void)dup2(pipe_fd[1], STDOUT_FILENO);
		(void)dup2(pipe_fd[1], STDERR_FILENO);
		(void)close(pipe_fd[0]);
		(void)execvp(arguments[0], arguments);
		_exit(127);
	}
	(void)close(pipe_fd[1]);
	for (size_t used = 0; used < bytes - 1; used += (size_t)got) {
		got = read(pipe_fd[0], ret + used, bytes - 1 - used);
		if (got <= 0)
			break;
		ret[used + (size_t)got] = '\0';
	}
	(void)close(pipe_fd[0]);
	if (child < 0 || waitpid(child, &status, 0) < 0)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* sana-import checks every file against the manifest's digests. */
static void model_check(struct report *report, const char *directory)
{
	char output[4096], program[512] = "sana-import", *slash, *last;
	const ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 16);
	int status;

	if (length > 0) {
		program[length] = '\0';
		slash = strrchr(program, '/');
		(void)snprintf(slash + 1, sizeof(program) - (size_t)(slash + 1 - program),
			       "sana-import");
	}
	status = run((char *[]){ program, "--describe", (char *)directory, "--verify", NULL },
		     output, sizeof(output));
	output[strcspn(output, "\r")] = '\0';
	last = output + strlen(output);
	while (last > output && (last[-1] == '\n' || last[-1] == ' '))
		*--last = '\0';
	last = strrchr(output, '\n');
	last = last ? last + 1 : output;
	/* The demo model has no manifest, and nothing that could have gone wrong on the way. */
	if (strstr(last, "manifest.json"))
		say(report, NOTICE, "model", "", "%.200s: no manifest to compare its files with.",
		    directory);
	else if (status == 0)
		say(report, FINE, "model", "", "%.200s: %.200s", directory, last);
	else
		say(report, PROBLEM, "model", "import it again: man sana-import", "%.200s: %.200s",
		    directory, *last ? last : "cannot be checked");
}

/* -------------------------------------------------------------------------------------- service */

static void service_check(struct ctl *ctl, struct report *report)
{
	json_t *state = NULL, *fault = NULL, *model = NULL;

	if (!ctl->session &&
	    access("/usr/share/dbus-1/system.d/org.sana.Stream1.conf", F_OK) != 0 &&
	    access("/etc/dbus-1/system.d/org.sana.Stream1.conf", F_OK) != 0)
		say(report, PROBLEM, "bus policy",
		    "install the package again, or sudo make install",
		    "org.sana.Stream1.conf is not among the policies of the system bus.");
	if (!ctl->bus) {
		say(report, PROBLEM, "bus", "systemctl status dbus", "There is no bus.");
		return;
	}
	state = ctl_property(ctl, "State");
	if (!state) {
		say(report, PROBLEM, "service",
		    "systemctl start sana-streamd; journalctl -u sana-streamd",
		    "sana-streamd does not answer as %s.", ctl->name);
		return;
	}
	fault = ctl_property(ctl, "Fault");
	model = ctl_property(ctl, "Model");
	if (json_is_string(fault) && *json_string_value(fault))
		say(report, PROBLEM, "service", "journalctl -u sana-streamd -n 50",
		    "The stream is %s: %s.", json_string_value(state), json_string_value(fault));
	else
		say(report, FINE, "service", "", "The stream is %s.", json_string_value(state));
	if (json_is_string(model) && *json_string_value(model))
		model_check(report, json_string_value(model));
	json_decref(state);
	json_decref(fault);
	json_decref(model);
}

/* ------------------------------------------------------------------------------------------ all */

static void report_print(const struct report *report)
{
	const bool colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
	json_t *entry;
	size_t i;

	json_array_foreach(report->list, i, entry)
	{
		const char *verdict = json_string_value(json_object_get(entry, "verdict"));
		const char *fix = json_string_value(json_object_get(entry, "fix"));
		const char *on = *verdict == 'p' ? "\033[31m" :
				 *verdict == 'n' ? "\033[33m" :
						   "\033[32m";

		(void)printf("%s%-8s%s%-22s %s\n", colour ? on : "", verdict,
			     colour ? "\033[0m" : "",
			     json_string_value(json_object_get(entry, "check")),
			     json_string_value(json_object_get(entry, "text")));
		if (*fix && *verdict != 'o')
			(void)printf("%30s try: %s\n", "", fix);
	}
	(void)printf("%d problems.\n", report->problems);
}

int ctl_doctor(struct ctl *ctl)
{
	struct report report = { .list = json_array() };

	(void)ctl_connect(ctl);
	service_check(ctl, &report);
	user_check(&report);
	loopback_check(&report);
	nodes_check(&report);
	gpu_check(&report);
	if (ctl->json)
		(void)ctl_print(json_incref(report.list));
	else
		report_print(&report);
	json_decref(report.list);
	return report.problems ? CTL_FAILED : CTL_DONE;
}
