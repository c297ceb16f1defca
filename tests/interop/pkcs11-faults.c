/* A PKCS#11 module before another one (PKCS11_BEHIND): what the file PKCS11_FAULT says goes wrong.
 * A line "RV MS": each call that seals or opens takes MS milliseconds, and gives the error RV (hexadecimal; 0: none).
 * Logins are counted in PKCS11_LOGINS, a byte each; while PKCS11_FAULT.pin exists, the PIN is refused, and no session lives. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*call)(word, word, word, word, word, word, word, word);
/* The version, then the functions in the order of the standard. */
struct list { unsigned char version[8]; void *functions[68]; };
enum { GET_FUNCTION_LIST = 3, LOGIN = 18, FIND_OBJECTS_INIT = 26, ENCRYPT = 30, DECRYPT = 34 };
static struct list *behind, mine;

static word fault(void) {
  const char *name = getenv("PKCS11_FAULT");
  FILE *file = name ? fopen(name, "r") : NULL;
  word error = 0, milliseconds = 0;
  if (!file) return 0;
  if (fscanf(file, "%lx %lu", &error, &milliseconds) < 1) error = 0;
  fclose(file);
  usleep(milliseconds * 1000);
  return error;
}
static int pin_is_refused(void) {
  char name[4096];
  snprintf(name, sizeof name, "%s.pin", getenv("PKCS11_FAULT"));
  return access(name, F_OK) == 0;
}
#define PASS(index) ((call)behind->functions[index])(a, b, c, d, e, f, g, h)
#define ARGUMENTS word a, word b, word c, word d, word e, word f, word g, word h
static word login(ARGUMENTS) {
  FILE *file = fopen(getenv("PKCS11_LOGINS"), "a");
  if (file) { fputc('x', file); fclose(file); }
  return pin_is_refused() ? 0xA0 : PASS(LOGIN);
}
static word find(ARGUMENTS) { return pin_is_refused() ? 0xB3 : PASS(FIND_OBJECTS_INIT); }
static word encrypt(ARGUMENTS) { word error = fault(); return error ? error : PASS(ENCRYPT); }
static word decrypt(ARGUMENTS) { word error = fault(); return error ? error : PASS(DECRYPT); }

word C_GetFunctionList(struct list **out) {
  if (!behind) {
    void *module = dlopen(getenv("PKCS11_BEHIND"), RTLD_NOW);
    word (*get)(struct list **) = module ? (word (*)(struct list **))dlsym(module, "C_GetFunctionList") : NULL;
    if (!get || get(&behind)) return 5;
    mine = *behind;
    mine.functions[GET_FUNCTION_LIST] = C_GetFunctionList;
    mine.functions[LOGIN] = login;
    mine.functions[FIND_OBJECTS_INIT] = find;
    mine.functions[ENCRYPT] = encrypt;
    mine.functions[DECRYPT] = decrypt;
  }
  *out = &mine;
  return 0;
}
